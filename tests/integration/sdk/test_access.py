"""Keys, tokens and TLS through the SDK."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dalston import (
    AuthenticationError,
    Client,
    Ended,
    NotFound,
    PermissionDenied,
    Reconnecting,
    Scope,
    SessionBegan,
    SessionEnded,
)
from dalston.options import Transport

from stack.ports import free_port
from stack.settings import ROOT, StackSettings
from stack.supervisor import running_stack
from tests.conftest import SCRIPTED_PROGRAMS
from tests.integration.envoy.certificates import make_certificate
from tests.integration.sdk.test_documentation import ABOUT_KEYS

SCOPES = "realtime,sessions:read,sessions:write,admin"
TRANSPORTS: tuple[Transport, ...] = ("grpc", "websocket")
SECOND = bytes(32_000)


@dataclass(frozen=True)
class Keyed:
    """A stack with TLS that requires keys, and a key with all scopes."""

    url: str
    ca_file: Path
    admin: str

    def client(self, key: str | None = None) -> Client:
        return Client(self.url, key, ca_file=self.ca_file)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    certificate = make_certificate(tmp_path_factory.mktemp("certificate"), 1)
    more: dict[str, Any] = {"tls_cert": certificate.chain, "tls_key": certificate.private_key}
    home, port = tmp_path_factory.mktemp("keyed"), free_port()
    outside: dict[str, Any] = {"database_url": None, "s3_endpoint_url": None, "s3_bucket": None, "enhance": False}
    with running_stack(StackSettings(home=home, port=port, auth="keys", **outside, **more), programs=SCRIPTED_PROGRAMS):
        home_named = {"DALSTON_HOME": str(home)}
        command = [sys.executable, "-m", "persistence.access", "create-key", "--tenant", "acme", "--name", "test"]
        made = subprocess.run(
            [*command, "--scopes", SCOPES, "--json"],
            env={name: value for name, value in os.environ.items() if name != "DALSTON_DATABASE_URL"} | home_named,
            cwd=ROOT,
            check=True,
            stdout=subprocess.PIPE,
        )
        yield Keyed(f"https://127.0.0.1:{port}", certificate.chain, json.loads(made.stdout)["secret"])


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_missing_or_wrong_key_is_rejected(keyed: Keyed, transport: Transport) -> None:
    for key in (None, "dk_" + "w" * 43):
        with keyed.client(key) as unauthenticated:
            with pytest.raises(AuthenticationError):
                list(unauthenticated.sessions.list())
            with pytest.raises(AuthenticationError):
                unauthenticated.transcribe(iter([SECOND]), transport=transport).wait()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_key_grants_its_scopes_until_it_is_revoked(keyed: Keyed, transport: Transport) -> None:
    with keyed.client(keyed.admin) as admin:
        made = admin.keys.create("laptop", [Scope.REALTIME], expires_in_seconds=600)
        assert made.key.scopes == {Scope.REALTIME}
        assert made.key.id in {key.id for key in admin.keys.list()}
        with keyed.client(made.secret) as laptop:
            assert isinstance(list(laptop.transcribe(iter([SECOND]), transport=transport))[-1], Ended)
            with pytest.raises(PermissionDenied):
                list(laptop.sessions.list())
            with pytest.raises(PermissionDenied):
                laptop.keys.create("another", [Scope.ADMIN])
        assert admin.keys.revoke(made.key.id).revoked_at is not None
        with pytest.raises(NotFound):
            admin.keys.revoke("key_" + "0" * 32)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_session_ended_on_request_is_not_resumed(keyed: Keyed, transport: Transport) -> None:
    def forever() -> Iterator[bytes]:
        while True:
            yield SECOND[:3200]
            time.sleep(0.1)

    begun: list[str] = []
    with keyed.client(keyed.admin) as client, pytest.raises(SessionEnded):
        for event in client.transcribe(forever(), transport=transport):
            assert not isinstance(event, Reconnecting)
            if isinstance(event, SessionBegan):
                begun.append(event.session_id)
                assert client.sessions.end(event.session_id).status == "active"
    (session_id,) = begun
    with keyed.client(keyed.admin) as client:
        assert client.sessions.end(session_id).status == "interrupted"
        with pytest.raises(NotFound):
            client.sessions.end("sess_" + "0" * 32)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_session_of_a_revoked_key_ends_and_is_not_resumed(keyed: Keyed, transport: Transport) -> None:
    def forever() -> Iterator[bytes]:
        while True:
            yield SECOND[:3200]
            time.sleep(0.1)

    with keyed.client(keyed.admin) as admin:
        made = admin.keys.create("laptop", [Scope.REALTIME])
        assert made.key.created_by is not None
        with keyed.client(made.secret) as laptop, pytest.raises(AuthenticationError):
            for event in laptop.transcribe(forever(), transport=transport):
                assert not isinstance(event, Reconnecting)
                if isinstance(event, SessionBegan):
                    admin.keys.revoke(made.key.id)


def test_token_opens_one_session_once(keyed: Keyed) -> None:
    with keyed.client(keyed.admin) as admin:
        token = admin.tokens.create(expires_in_seconds=60)
    with keyed.client(token.token) as page:
        assert isinstance(list(page.transcribe(iter([SECOND]), transport="websocket"))[-1], Ended)
        with pytest.raises(AuthenticationError):
            page.transcribe(iter([SECOND]), transport="websocket").wait()


@pytest.mark.parametrize("block", ABOUT_KEYS, ids=range(len(ABOUT_KEYS)))
def test_key_examples_of_the_guide_run(keyed: Keyed, block: str) -> None:
    own = {
        "DALSTON_URL": keyed.url,
        "DALSTON_API_KEY": keyed.admin,
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(keyed.ca_file),
        "PYTHONPATH": os.pathsep.join(each for each in sys.path if each),
    }
    done = subprocess.run([sys.executable, "-W", "error", "-c", block], env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
