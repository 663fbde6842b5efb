"""The settings of the uploads process: environment variables that begin with `DALSTON_`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from telemetry.logs import LogFormat
from telemetry.origins import Origins, split_origins


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """How much one request may send, and how long it waits for either end, in seconds."""

    max_bytes: int
    """The largest file."""
    idle_seconds: float
    """For the client to send its next bytes."""
    receive_seconds: float
    """For all of the request to arrive."""
    stall_seconds: float
    """For the server to take one message, and to create the job once the file is complete."""
    wait_seconds: float
    """For the job to end."""
    stuck_seconds: float
    """For the client to take one event."""


class UploadsSettings(BaseSettings):
    """Settings of one uploads process."""

    model_config = SettingsConfigDict(env_prefix="DALSTON_", frozen=True, extra="ignore", env_ignore_empty=True)

    uploads_host: str = "127.0.0.1"
    """The address to listen on."""
    uploads_port: int = Field(default=8082, ge=0, le=65535)
    """The port to listen on; 0 takes a free one and logs it."""
    uploads_socket: Path | None = None
    """A Unix socket to listen on instead: its permissions decide which processes are served."""
    server_target: str = "127.0.0.1:50051"
    """The transcription server as a gRPC target; the addresses of a name are used in turn."""
    auth: Literal["none", "keys"] = "none"
    """How callers authenticate. The server checks it; here it decides where the process may listen, and which pages it
    serves."""
    allowed_origins: Origins = ""
    """Pages that may send files although another host serves them: origins, separated by commas."""
    allow_unauthenticated: bool = False
    """Whether an unauthenticated service may be reached from other machines."""
    max_upload_bytes: int = Field(default=512 * 1024 * 1024, ge=1)
    """The largest file."""
    model_aliases: dict[str, str] = Field(default_factory=dict)
    """Further names of models, as JSON: `{"whisper-large-v3": "accurate"}`. They replace built-in aliases."""
    uploads_max_requests: int = Field(default=200, ge=1)
    """Requests served at once; further ones are refused with 503."""
    uploads_idle_seconds: float = Field(default=60.0, gt=0)
    """Time a client gets to send its next bytes."""
    uploads_receive_seconds: float = Field(default=3600.0, gt=0)
    """Time a client gets to send its request."""
    uploads_stall_seconds: float = Field(default=60.0, gt=0)
    """Time the server gets to take one message, and to create the job of a complete file."""
    uploads_wait_seconds: float = Field(default=3600.0, gt=0)
    """Time a request waits for its job. The job continues without it."""
    uploads_stuck_seconds: float = Field(default=30.0, gt=0)
    """Time a client gets to take one event of a streamed answer."""
    shutdown_seconds: float = Field(default=30.0, ge=0)
    """Time for requests to finish when the process stops. The server has a setting of the same name."""
    uploads_metrics_port: int = Field(default=0, ge=0, le=65535)
    """Where Prometheus metrics are served, on loopback; 0 means not at all."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severity that is logged."""
    log_format: LogFormat = "auto"
    """`json`, `text`, or `auto`: text at a terminal."""

    @property
    def limits(self) -> UploadLimits:
        """The limits of each request."""
        return UploadLimits(
            max_bytes=self.max_upload_bytes,
            idle_seconds=self.uploads_idle_seconds,
            receive_seconds=self.uploads_receive_seconds,
            stall_seconds=self.uploads_stall_seconds,
            wait_seconds=self.uploads_wait_seconds,
            stuck_seconds=self.uploads_stuck_seconds,
        )

    @property
    def origins(self) -> frozenset[str]:
        """The allowed origins."""
        return frozenset(split_origins(self.allowed_origins))

    @property
    def is_local_only(self) -> bool:
        """Whether, of web pages, only those on loopback and the allowed ones are served: there is no authentication,
        and any page can send a form to localhost from its visitor's browser."""
        return self.auth == "none" and not self.allow_unauthenticated
