"""Where sessions are stored, read from the environment."""

import os
import secrets
import socket
from pathlib import Path
from typing import Self
from urllib.parse import parse_qsl, urlencode, urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg")


def _default_worker_id() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


class PersistenceSettings(BaseSettings):
    """Postgres, S3 and the spool. Environment variables have the prefix `DALSTON_`."""

    model_config = SettingsConfigDict(env_prefix="DALSTON_", frozen=True, extra="ignore", env_ignore_empty=True)

    database_url: SecretStr = SecretStr("postgresql://postgres@127.0.0.1:5432/dalston")
    """`postgresql://user:password@host:port/database`; the driver is added."""

    database_pool_size: int = Field(default=10, ge=1)
    """Most connections to Postgres of one process."""

    database_deadline_seconds: float = Field(default=5.0, gt=0)
    """Longest time for one transaction, waiting for a connection included."""

    s3_endpoint_url: str | None = None
    """An S3-compatible server; None is AWS."""

    s3_bucket: str = "dalston"
    """Made at the start if it is not there."""

    s3_region: str = "us-east-1"

    s3_access_key_id: SecretStr | None = None
    """None: the default chain of AWS (environment, profile, instance role)."""

    s3_secret_access_key: SecretStr | None = None

    s3_deadline_seconds: float = Field(default=30.0, gt=0)
    """Longest time for one call to S3, one part of 5 MiB at most."""

    lease_seconds: float = Field(default=15.0, ge=1)
    """How long after its last sign of life a server is taken for dead."""

    lease_renewal_seconds: float = Field(default=5.0, gt=0)
    """How often a server gives a sign of life."""

    reap_seconds: float = Field(default=5.0, gt=0)
    """How often a server looks for what dead ones left."""

    recovery_grace_seconds: float = Field(default=20.0, ge=0)
    """How long the audio of a dead server's sessions waits for that server to come back with its spool, which may hold
    more than S3. The sessions' status does not wait."""

    delete_age_seconds: float = Field(default=60.0, ge=0)
    """When a delete that did not end is finished by another server."""

    orphan_age_seconds: float = Field(default=86_400.0, ge=60)
    """Age of a deleted session whose objects, late or left over, are removed when its row is gone."""

    sweep_seconds: float = Field(default=300.0, gt=0)
    """How often a server looks at the next thousand objects for such ones."""

    spool_dir: Path = Path(".dalston/spool")
    """Folder on a local disk that survives a restart; several processes may share it."""

    spool_bytes: int = Field(default=50 * 1024**3, gt=0)
    """Most audio in this process's spool: what S3 has not taken yet, and up to 10 MiB for each running session."""

    spool_wait_seconds: float = Field(default=30.0, ge=0)
    """How long a stream is held back while the spool is full before it ends as unavailable."""

    flush_seconds: float = Field(default=10.0, gt=0)
    """How often the audio that is in no part of 5 MiB yet is put to S3: what the loss of a machine may cost."""

    fsync_seconds: float = Field(default=1.0, gt=0)
    """How often the spool is synced to disk: what the loss of power may cost."""

    worker_id: str = Field(default_factory=_default_worker_id, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")
    """Names this process in rows and in the spool. Default: host, process id and a random number."""

    store_wait_seconds: float = Field(default=10.0, ge=0)
    """How long `session_end` waits for audio and transcript to be stored before it goes out without their URIs."""

    resume_wait_seconds: float = Field(default=10.0, ge=0)
    """How long a new session waits for the end of the one it resumes, whose connection may be dead."""

    vanished_grace_seconds: float = Field(default=60.0, ge=0)
    """How long recognition may go on after a client vanished, to transcribe what it had sent."""

    @field_validator("database_url")
    @classmethod
    def _is_postgres(cls, url: SecretStr) -> SecretStr:
        if urlsplit(url.get_secret_value()).scheme not in _SCHEMES:
            raise ValueError("must start with postgresql://")
        return url

    @model_validator(mode="after")
    def _has_both_keys_or_none(self) -> Self:
        if (self.s3_access_key_id is None) != (self.s3_secret_access_key is None):
            raise ValueError("DALSTON_S3_ACCESS_KEY_ID and DALSTON_S3_SECRET_ACCESS_KEY go together")
        return self

    @property
    def sqlalchemy_url(self) -> str:
        """`database_url` with the asyncpg driver, and libpq's `sslmode` under the name that the driver has for it."""
        url = urlsplit(self.database_url.get_secret_value())
        query = urlencode([("ssl" if name == "sslmode" else name, value) for name, value in parse_qsl(url.query)])
        return url._replace(scheme=_SCHEMES[-1], query=query).geturl()
