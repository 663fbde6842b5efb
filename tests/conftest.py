"""The real components, started once for all tests that ask for them and stopped after the last."""

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from stack.postgres import PostgresServer, postgres
from stack.seaweedfs import S3Server, seaweedfs


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with postgres(tmp_path_factory.mktemp("postgres"), durable=False) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PostgresServer) -> str:
    """A database with the current schema, shared by the session: a test cleans up or keeps to a tenant of its own."""
    if find_spec("persistence.migrate") is not None:
        from persistence.migrate import migrate

        migrate(postgres_server.url)
    return postgres_server.url


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server with one bucket: endpoint_url, access_key_id, secret_access_key, bucket, region."""
    with seaweedfs(tmp_path_factory.mktemp("s3")) as server:
        yield server
