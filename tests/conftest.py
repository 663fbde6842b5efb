"""The real components, started once for all tests that ask for them and stopped after the last."""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import settings as hypothesis_settings
from xdist.scheduler import LoadScopeScheduling

from persistence.migrate import migrate
from stack.parts import Programs
from stack.ports import free_port
from stack.postgres import PostgresServer, postgres
from stack.seaweedfs import S3Server, seaweedfs
from stack.settings import ROOT, StackSettings
from stack.supervisor import Stack, running_stack
from tests.faults.figures import FIGURES
from tests.faults.servers import SCRIPTED

THOROUGH = "thorough"
"""The profile of hypothesis with which `make faults` has more examples tried."""
hypothesis_settings.register_profile(THOROUGH, deadline=None)
# The default deadline of 200 ms for an example fails tests on a busy machine.
hypothesis_settings.register_profile("without_deadline", deadline=None)
hypothesis_settings.load_profile("without_deadline")

SCRIPTED_PROGRAMS = Programs(
    weights=(sys.executable, "-c", "pass"),
    server=(sys.executable, "-m", SCRIPTED),
    worker=(sys.executable, "-m", "tests.scripted_recognizer"),
)
"""A stack without its two models: for what is not about them."""


def pytest_configure() -> None:
    # On a machine that is busy with tests text is late, and nothing here is to be refused for it.
    os.environ.setdefault("DALSTON_MAX_QUEUE_DELAY_SECONDS", "60")
    # A worker of the lowest priority would do nothing beside other tests.
    os.environ.setdefault("DALSTON_WORKER_PRIORITY", "normal")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--faults",
        choices=("none", "some", "all"),
        default="some",
        help="how much of tests/faults to run: nothing, a part (the default), or all of it (make faults)",
    )


ON_KEYED_STACK = (
    "e2e/console/test_keys_page.py",
    "e2e/console/test_login_page.py",
    "e2e/console/test_live_logins.py",
    "e2e/test_access.py",
    "e2e/test_control.py",
    "e2e/test_idle_watch.py",
    "e2e/test_limits.py",
    "e2e/test_proxies.py",
    "e2e/test_watch.py",
    "faults/test_floods.py",
    "integration/cli/test_cli_keys.py",
)
"""Files whose tests need `keyed_stack` and not `stack`."""
ON_STACK = ("e2e/", "integration/cli/", "integration/sdk/", "integration/stack/test_demo.py")
"""Where the tests, but for those, need `stack`, whose models take a processor ten seconds to load."""
OWN_STACK = ("e2e/test_worker.py",)
"""Files of those folders whose tests have a stack of their own."""
IN_REAL_TIME = ("e2e/console/test_live", "e2e/console/test_keeper.py")
"""Files among these that record for minutes at the speed of speech, and go to a process of their own."""
SHARING = ("integration/bridge", "integration/envoy", "integration/inference", "integration/rpc")
"""Folders whose tests share a server of the folder's own, or a model, or are soon done."""


class ByServers(LoadScopeScheduling):
    """Where processes share the tests (`-n`), those that share expensive servers go to one; others go file by file.

    Postgres and S3 take two seconds to start, and each process has its own. xdist's own way, `--dist loadgroup`, does
    nothing with pytest 9.2: it writes to a field that items no longer have.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0].removeprefix("tests/")
        folder = "/".join(file.split("/")[:2])
        if file in ON_KEYED_STACK:
            return "keyed_stack"
        if file.startswith(IN_REAL_TIME):
            return "real_time"
        if file.startswith(ON_STACK) and file not in OWN_STACK:
            return "stack"
        return folder if folder in SHARING or (file.startswith("unit/") and folder != "unit/sdk") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByServers:
    return ByServers(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """One of several processes hands its figures to the one that prints."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["faults"] = FIGURES.handed_over()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    # A process that died has none.
    if figures := getattr(node, "workeroutput", {}).get("faults"):
        FIGURES.take_over(*figures)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if lines := FIGURES.summary():
        terminalreporter.section("what the faults did")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A command that a test runs in this process logs to what pytest closes after the test.

    Every line of the tests behind it would then fail, with a traceback of a hundred lines.
    """
    root = logging.getLogger()
    handlers, level, config = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**config)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with postgres(tmp_path_factory.mktemp("postgres"), durable=False) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PostgresServer) -> str:
    """A database with the current schema, shared by the session: a test cleans up or keeps to a tenant of its own."""
    migrate(postgres_server.url)
    return postgres_server.url


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server with one bucket: endpoint_url, access_key_id, secret_access_key, bucket, region."""
    with seaweedfs(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def weights_cache() -> Path:
    """Where converted weights stay from one run of the tests to the next; `make demo` uses the same folder."""
    return Path(os.environ.get("DALSTON_CACHE_DIR") or ROOT / ".dalston" / "cache")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, weights_cache: Path) -> Iterator[Stack]:
    """Everything, as `make up` runs it, but for the port, the folder of its data and the worker."""
    settings = StackSettings(
        home=tmp_path_factory.mktemp("stack"),
        host="127.0.0.1",
        port=free_port(),
        auth="none",
        address_requests_per_second=1000,
        cache_dir=weights_cache,
        database_url=None,
        s3_endpoint_url=None,
        s3_bucket=None,
        # Jobs stay queued. The tests of the worker have a stack of their own.
        enhance=False,
    )
    with running_stack(settings) as stack:
        yield stack


@pytest.fixture(scope="session")
def keyed_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that asks for keys. Who uses it makes tenants of its own."""
    settings = StackSettings(
        home=tmp_path_factory.mktemp("keyed"),
        port=free_port(),
        auth="keys",
        address_requests_per_second=1000,
        allowed_origins="https://app.example",
        database_url=None,
        s3_endpoint_url=None,
        s3_bucket=None,
        # Jobs stay queued. The tests of the worker have a stack of their own.
        enhance=False,
    )
    with running_stack(settings, programs=SCRIPTED_PROGRAMS) as stack:
        yield stack
