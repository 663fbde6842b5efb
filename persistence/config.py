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
    """The maximum number of connections to Postgres of a process."""

    database_deadline_seconds: float = Field(default=5.0, gt=0)
    """Deadline of a transaction, including the wait for a connection."""

    s3_endpoint_url: str | None = None
    """An S3-compatible server; None is AWS."""

    s3_bucket: str = "dalston"
    """Created at the start if it does not exist."""

    s3_region: str = "us-east-1"

    s3_access_key_id: SecretStr | None = None
    """None: the default chain of AWS (environment, profile, instance role)."""

    s3_secret_access_key: SecretStr | None = None

    s3_deadline_seconds: float = Field(default=30.0, gt=0)
    """Deadline of a call to S3, which transfers at most one part of 5 MiB."""

    lease_seconds: float = Field(default=15.0, ge=1)
    """How long after its last renewal of the lease a server is considered dead."""

    lease_renewal_seconds: float = Field(default=5.0, gt=0)
    """How often a server renews its lease."""

    reap_seconds: float = Field(default=5.0, gt=0)
    """How often a server looks for sessions of dead ones."""

    job_retry_seconds: float = Field(default=10.0, ge=0)
    """How long a batch job waits after its first failed attempt; twice as long after each further one, up to ten
    minutes."""

    recovery_grace_seconds: float = Field(default=20.0, ge=0)
    """How long the recovery of a dead server's audio waits for a restart of that server, whose spool may hold more than
    S3. The status of the sessions does not wait."""

    delete_age_seconds: float = Field(default=60.0, ge=0)
    """The age at which another server completes an interrupted deletion."""

    orphan_age_seconds: float = Field(default=86_400.0, ge=60)
    """The age of a deleted session from which its remaining objects are deleted when its row no longer exists."""

    sweep_seconds: float = Field(default=300.0, gt=0)
    """How often a server checks the next thousand objects for such remains."""

    spool_dir: Path = Path(".dalston/spool")
    """Folder on a local disk that survives a restart; several processes may share it."""

    spool_bytes: int = Field(default=50 * 1024**3, gt=0)
    """Maximum audio in this process's spool: the backlog for S3, and up to 10 MiB for each running session."""

    spool_wait_seconds: float = Field(default=30.0, ge=0)
    """How long a stream is paused while the spool is full before it ends as unavailable."""

    flush_seconds: float = Field(default=10.0, gt=0)
    """How often audio that is in no part of 5 MiB yet is written to S3: the most that the loss of a machine loses."""

    fsync_seconds: float = Field(default=1.0, gt=0)
    """How often the spool is synced to disk: the most that a power failure loses."""

    worker_id: str = Field(default_factory=_default_worker_id, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")
    """Names this process in rows and in the spool. Default: host, process id and a random number."""

    store_wait_seconds: float = Field(default=10.0, ge=0)
    """How long `session_end` waits for audio and transcript to be stored before it is sent without their URIs."""

    resume_wait_seconds: float = Field(default=10.0, ge=0)
    """How long a new session waits for the end of the session that it resumes, whose connection may be dead."""

    vanished_grace_seconds: float = Field(default=60.0, ge=0)
    """How long recognition may continue after a disconnect, to transcribe the audio that was received."""

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
        """`database_url` for the asyncpg driver, with libpq's `sslmode` renamed to the driver's `ssl`."""
        url = urlsplit(self.database_url.get_secret_value())
        query = urlencode([("ssl" if name == "sslmode" else name, value) for name, value in parse_qsl(url.query)])
        return url._replace(scheme=_SCHEMES[-1], query=query).geturl()
