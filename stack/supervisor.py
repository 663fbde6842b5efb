"""The local stack: its parts are started in order, kept running, and stopped in reverse order."""

import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from stack import envoy, parts, postgres, seaweedfs
from stack.envoy import Endpoints, Envoy
from stack.home import Home, locked_home
from stack.keeper import Keeper, Service
from stack.parts import Programs
from stack.postgres import Postgres
from stack.process import Pause, Process
from stack.progress import Progress, Silent
from stack.public_address import addresses, certificate, names
from stack.seaweedfs import S3Server, SeaweedFS
from stack.settings import StackSettings

_WATCH_SECONDS = 0.2


@dataclass(frozen=True)
class Stack:
    """A running stack and its addresses."""

    host: str
    """The host of the public port, as seen from this machine."""
    port: int
    is_encrypted: bool
    """Whether the public port speaks TLS."""
    endpoints: Endpoints
    """Where Envoy listens, and its upstreams."""
    database_url: str = field(repr=False)
    s3: S3Server | None
    """None if an external one is used."""
    metrics: str | None
    """The arguments with which curl reads the server's metrics."""
    home: Home
    keeper: Keeper = field(repr=False)
    envoy: Envoy = field(repr=False)

    @property
    def processes(self) -> tuple[Process, ...]:
        """The running ones, in the order in which they were started first."""
        return self.keeper.processes

    @property
    def public_name(self) -> str:
        """The host as a person would type it."""
        return "localhost" if self.host == "127.0.0.1" else self.host

    @property
    def base_url(self) -> str:
        return f"{'https' if self.is_encrypted else 'http'}://{self.host}:{self.port}"

    @property
    def console_url(self) -> str | None:
        """The web console as a person would type it; None if it is off."""
        if not self.endpoints.console:
            return None
        return f"{'https' if self.is_encrypted else 'http'}://{self.public_name}:{self.port}/console/"

    @property
    def ws_url(self) -> str:
        return f"{'wss' if self.is_encrypted else 'ws'}://{self.host}:{self.port}"

    @property
    def grpc_target(self) -> str:
        return f"{self.host}:{self.port}"

    def check(self) -> None:
        """Restarts parts that have ended.

        Raises:
            GivenUp: a part keeps failing.
        """
        self.keeper.check()
        self.envoy.check_certificate()

    def watch(self, pause: Pause) -> None:
        """Checks the parts forever.

        Raises:
            GivenUp: a part keeps failing.
            Interrupted: from `pause`.
        """
        while True:
            self.check()
            pause(_WATCH_SECONDS)


@contextmanager
def running_stack(
    settings: StackSettings,
    *,
    pause: Pause = time.sleep,
    progress: Progress | None = None,
    programs: Programs | None = None,
) -> Iterator[Stack]:
    """Runs the stack while the block runs; it is ready when the block begins.

    The block must call `check` or `watch` regularly: they notice a part that has died, and restart it.

    Raises:
        StackError: it cannot start; what was started has been stopped again.
    """
    progress = progress or Silent()
    hosts = addresses(settings)
    with locked_home(settings.home) as home, Keeper(progress) as keeper:
        try:
            yield _start(keeper, settings, hosts, home, pause, progress, programs or Programs())
        finally:
            with progress.step("all parts stopped", "stopping"):
                keeper.close()


def _start(
    keeper: Keeper,
    settings: StackSettings,
    hosts: list[str],
    home: Home,
    pause: Pause,
    progress: Progress,
    programs: Programs,
) -> Stack:
    endpoints = Endpoints(
        hosts,
        settings.port,
        0,
        0,
        server_socket=home.socket("server"),
        bridge_socket=home.socket("bridge"),
        uploads_socket=home.socket("uploads"),
        names=names(settings),
        origins=settings.origins,
        proxies=settings.proxies,
        console=settings.console,
        requests_each=settings.address_requests_per_second,
        certificate=certificate(settings),
    )

    def wait(seconds: float) -> None:
        """Watches the parts before it while one part starts."""
        keeper.check_starting()
        pause(seconds)

    def start(service: Service, title: str, doing: str = "starting") -> None:
        with progress.step(title, doing):
            keeper.launch(service)
            keeper.wait(service, pause)

    env: dict[str, str] = {"DALSTON_SPOOL_DIR": str(home.spool)}
    env["DALSTON_CACHE_DIR"] = str((settings.cache_dir or home.data("cache")).expanduser().absolute())
    with progress.step("weights", "fetching and converting, once") as report:
        parts.run_once("weights", programs.weights, home, env, wait, report, as_root=True)
    s3 = s3_service = None
    if not settings.external_s3:
        # The parts that do not need it start meanwhile.
        seaweed = SeaweedFS(home.data("s3"), home.identity, log=home.log("s3"))
        s3 = seaweed.server
        s3_service = Service("seaweedfs", seaweed.launch, seaweed.is_ready, seaweedfs.READY_SECONDS)
        keeper.launch(s3_service)
    database_url = settings.database_url
    if database_url is None:
        with progress.step("Postgres"):
            database = Postgres(home.data("postgres"), home.identity, log=home.log("postgres"), pause=wait)
            service = Service("postgres", database.launch, database.is_ready, postgres.READY_SECONDS)
            keeper.launch(service)
            keeper.wait(service, pause)
        database_url = database.url
    env["DALSTON_DATABASE_URL"] = database_url
    with progress.step("database schema", "migrating"):
        parts.run_once("migrate", programs.migrate, home, env, wait)
    if s3 is not None and s3_service is not None:
        with progress.step("S3"):
            keeper.wait(s3_service, pause)
        env |= _s3_environment(s3)
    env |= {
        "DALSTON_AUTH": settings.auth,
        "DALSTON_ALLOWED_ORIGINS": settings.allowed_origins,
        "DALSTON_SERVER_TARGET": f"unix:{endpoints.server_socket}",
    }
    metrics_env, metrics = _metrics(settings, home)
    start(parts.server(programs.server, home, env | metrics_env), "server", "loading the models")
    # The parts before it serve already, and nobody waits for it: it becomes ready while the others start.
    worker = parts.worker(programs.worker, home, env) if settings.enhance else None
    if worker is not None:
        keeper.launch(worker)
    # The two do not need each other: they start together.
    uploads = parts.uploads(programs.uploads, home, env)
    keeper.launch(uploads)
    start(parts.bridge(programs.bridge, home, env), "bridge")
    with progress.step("uploads"):
        keeper.wait(uploads, pause)
    proxy = Envoy(home.data("envoy"), endpoints, home.identity, log=home.log("envoy"))
    start(Service("envoy", proxy.launch, proxy.is_ready, envoy.READY_SECONDS), "Envoy")
    if worker is not None:
        with progress.step("worker"):
            keeper.wait(worker, pause)
    return Stack(
        host=_reachable(hosts[0]),
        port=settings.port,
        is_encrypted=endpoints.certificate is not None,
        endpoints=endpoints,
        database_url=database_url,
        s3=s3,
        metrics=metrics,
        home=home,
        keeper=keeper,
        envoy=proxy,
    )


def _metrics(settings: StackSettings, home: Home) -> tuple[dict[str, str], str | None]:
    """The environment of the server for its metrics, and the arguments with which curl reads them."""
    match settings.metrics_port:
        case None:
            path = home.socket("metrics")
            return {
                "DALSTON_METRICS_SOCKET": str(path)
            }, f"--unix-socket {shlex.quote(str(path))} http://server/metrics"
        case 0:
            return {"DALSTON_METRICS_PORT": "0"}, None
        case port:
            return {"DALSTON_METRICS_PORT": str(port)}, f"http://127.0.0.1:{port}/metrics"


def _s3_environment(s3: S3Server) -> Mapping[str, str]:
    return {
        "DALSTON_S3_ENDPOINT_URL": s3.endpoint_url,
        "DALSTON_S3_BUCKET": s3.bucket,
        "DALSTON_S3_REGION": s3.region,
        "DALSTON_S3_ACCESS_KEY_ID": s3.access_key_id,
        "DALSTON_S3_SECRET_ACCESS_KEY": s3.secret_access_key,
    }


def _reachable(host: str) -> str:
    """The host that a client on this machine connects to."""
    match host:
        case "0.0.0.0":  # noqa: S104 - compared, not bound
            return "127.0.0.1"
        case "::":
            return "[::1]"
        case _:
            return f"[{host}]" if ":" in host else host
