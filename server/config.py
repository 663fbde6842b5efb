"""Settings of the server process, from `DALSTON_*` in the environment."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServerSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="DALSTON_", frozen=True, extra="ignore", env_ignore_empty=True)

    server_host: str = "127.0.0.1"
    """Address to serve gRPC on."""
    server_port: int = Field(default=50051, ge=0, le=65535)
    """Port to serve gRPC on."""
    server_socket: Path | None = None
    """A Unix socket to serve gRPC on instead: only processes that may open it can call, and their `x-forwarded-for` is
    trusted."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Port of `/metrics`, on `server_host`; 0 for none."""
    metrics_socket: Path | None = None
    """A Unix socket to serve `/metrics` on instead."""
    auth: Literal["none", "keys"] = "none"
    """How callers are authenticated: not at all, or by API keys and the tokens made with them."""
    allow_unauthenticated: bool = False
    """Whether `auth=none` may be served beyond loopback."""
    max_sessions: int = Field(default=64, ge=1)
    """Sessions at a time; further ones are refused with NO_CAPACITY."""
    max_queue_delay_seconds: float = Field(default=3, gt=0)
    """The queue delay above which further sessions are refused with NO_CAPACITY: how long utterances wait for those of
    other sessions. The model's own time is not part of it."""
    max_session_seconds: float = Field(default=4 * 3600, gt=0)
    """Longest session."""
    idle_timeout_seconds: float = Field(default=60, gt=0)
    """Longest time without a message from the client. A tenant's own limits override this and the longest session."""
    tenant_max_sessions: int = Field(default=100, ge=0)
    """With `auth=keys`: concurrent sessions of one tenant on all servers, unless it has its own limit."""
    tenant_requests_per_second: float = Field(default=50, gt=0)
    """With `auth=keys`: the rate limit of one tenant on each server, unless it has its own; bursts may be twice as
    large."""
    tenant_max_storage_bytes: int | None = Field(default=None, ge=0)
    """With `auth=keys`: once a tenant stores so much audio, its new sessions may not store any, unless it has its own
    limit. None: there is no limit."""
    tenant_max_queued_jobs: int = Field(default=1000, ge=0)
    """Batch jobs of one tenant that wait, unless it has its own limit; further calls that create one are refused."""
    tenant_share: float = Field(default=0.75, gt=0, le=1)
    """With `auth=keys`: the share of `max_sessions` that one tenant may use on this server."""
    tenant_max_watches: int = Field(default=100, ge=1)
    """Concurrent watches (`sessions:watch`, `utterances:watch` and those of jobs) of one tenant on each server."""
    tenant_max_downloads: int = Field(default=8, ge=1)
    """Concurrent downloads of one tenant on this server; each holds 1 MiB of memory."""
    tenant_max_uploads: int = Field(default=8, ge=1)
    """Files that one tenant uploads to this server at a time; each holds up to 10 MiB of memory."""
    max_upload_bytes: int = Field(default=512 * 1024**2, ge=1)
    """The largest file that may be uploaded, unless its tenant has its own limit."""
    shutdown_seconds: float = Field(default=30, ge=0)
    """The grace period: how long running sessions may continue after SIGTERM. Then the rest of them is transcribed and
    stored, and the process exits at most 20 s later."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "json", "text"] = "auto"
    """`auto`: text at a terminal, JSON elsewhere."""
