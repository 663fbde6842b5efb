"""The local stack: every part started in order, watched, and stopped in reverse."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from stack import parts
from stack.envoy import Doors, envoy
from stack.home import Home, occupied
from stack.parts import Programs
from stack.ports import free_port
from stack.postgres import postgres
from stack.process import Pause, Process
from stack.progress import Progress, Silent
from stack.public_address import addresses, certificate, names
from stack.seaweedfs import S3Server, starting_seaweedfs
from stack.settings import StackSettings

_WATCH_SECONDS = 0.2


@dataclass(frozen=True)
class Stack:
    """A running stack and its addresses."""

    host: str
    """Where the public port is reached from this machine."""
    port: int
    is_encrypted: bool
    """Whether the public port speaks TLS."""
    doors: Doors
    """Where Envoy listens and what stands behind it."""
    database_url: str = field(repr=False)
    s3: S3Server | None
    """None when an outer one is used."""
    metrics_url: str | None
    """Of the server."""
    home: Home
    processes: tuple[Process, ...]
    """In the order they were started."""

    @property
    def public_name(self) -> str:
        """The host as a person would write it."""
        return "localhost" if self.host == "127.0.0.1" else self.host

    @property
    def base_url(self) -> str:
        return f"{'https' if self.is_encrypted else 'http'}://{self.host}:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"{'wss' if self.is_encrypted else 'ws'}://{self.host}:{self.port}"

    @property
    def grpc_target(self) -> str:
        return f"{self.host}:{self.port}"

    def check(self) -> None:
        """Raises ProcessDied if a part has ended."""
        for process in self.processes:
            process.check()

    def watch(self, pause: Pause) -> None:
        """Returns never.

        Raises:
            ProcessDied: a part ended.
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

    The block is to call `check` or `watch` now and then: a part that dies is noticed there.

    Raises:
        StackError: it cannot start; what was started has been stopped again.
    """
    progress = progress or Silent()
    hosts = addresses(settings)
    with occupied(settings.home) as home, ExitStack() as started:
        try:
            yield _start(started, settings, hosts, home, pause, progress, programs or Programs())
        finally:
            with progress.step("all parts stopped", "stopping"):
                started.close()


def _start(
    started: ExitStack,
    settings: StackSettings,
    hosts: list[str],
    home: Home,
    pause: Pause,
    progress: Progress,
    programs: Programs,
) -> Stack:
    processes: list[Process] = []
    doors = Doors(
        hosts,
        settings.port,
        free_port(),
        free_port(),
        names=names(settings),
        origins=settings.origins,
        proxies=settings.proxies,
        certificate=certificate(settings),
    )

    def wait(seconds: float) -> None:
        """While one part starts, those before it are watched too."""
        for process in processes:
            process.check()
        pause(seconds)

    env: dict[str, str] = {"DALSTON_SPOOL_DIR": str(home.spool)}
    env["DALSTON_CACHE_DIR"] = str((settings.cache_dir or home.data("cache")).expanduser().absolute())
    with progress.step("weights", "fetching and converting, once") as tell:
        parts.run_once("weights", programs.weights, home, env, wait, tell)
    starting_s3 = None
    if not settings.external_s3:
        # It is waited for when all that does not need it is done.
        starting_s3 = started.enter_context(starting_seaweedfs(home.data("s3"), log=home.log("s3")))
        processes.append(starting_s3.process)
    database_url = settings.database_url
    if database_url is None:
        with progress.step("Postgres"):
            database = started.enter_context(postgres(home.data("postgres"), log=home.log("postgres"), pause=wait))
        processes.append(database.process)
        database_url = database.url
    env["DALSTON_DATABASE_URL"] = database_url
    with progress.step("database schema", "migrating"):
        parts.run_once("migrate", programs.migrate, home, env, wait)
    s3 = None
    if starting_s3 is not None:
        with progress.step("S3"):
            s3 = starting_s3.ready(wait)
        env |= _s3_environment(s3)
    metrics_port = free_port() if settings.metrics_port is None else settings.metrics_port
    env |= {
        "DALSTON_AUTH": settings.auth,
        "DALSTON_ALLOWED_ORIGINS": settings.allowed_origins,
        "DALSTON_METRICS_PORT": str(metrics_port),
        "DALSTON_SERVER_TARGET": f"{doors.server_host}:{doors.server_port}",
    }
    with progress.step("server", "loading the models"):
        processes.append(started.enter_context(parts.server(programs.server, home, doors.server_port, env, wait)))
    with progress.step("bridge"):
        processes.append(started.enter_context(parts.bridge(programs.bridge, home, doors.bridge_port, env, wait)))
    with progress.step("Envoy"):
        processes.append(started.enter_context(envoy(home.data("envoy"), doors, log=home.log("envoy"), pause=wait)))
    return Stack(
        host=_reachable(hosts[0]),
        port=settings.port,
        is_encrypted=doors.certificate is not None,
        doors=doors,
        database_url=database_url,
        s3=s3,
        metrics_url=f"http://127.0.0.1:{metrics_port}/metrics" if metrics_port else None,
        home=home,
        processes=tuple(processes),
    )


def _s3_environment(s3: S3Server) -> Mapping[str, str]:
    return {
        "DALSTON_S3_ENDPOINT_URL": s3.endpoint_url,
        "DALSTON_S3_BUCKET": s3.bucket,
        "DALSTON_S3_REGION": s3.region,
        "DALSTON_S3_ACCESS_KEY_ID": s3.access_key_id,
        "DALSTON_S3_SECRET_ACCESS_KEY": s3.secret_access_key,
    }


def _reachable(host: str) -> str:
    """What a client on this machine connects to."""
    match host:
        case "0.0.0.0":  # noqa: S104 - compared, not bound
            return "127.0.0.1"
        case "::":
            return "[::1]"
        case _:
            return f"[{host}]" if ":" in host else host
