"""Settings of the worker, from `DALSTON_*` in the environment."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class WorkerSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="DALSTON_", frozen=True, extra="ignore", env_ignore_empty=True)

    jobs_at_once: int = Field(default=2, ge=1, le=64)
    """Batch jobs that a worker does at a time. They take turns at the model, window by window."""
    tenant_max_jobs: int = Field(default=2, ge=0)
    """Batch jobs of one tenant that run at a time on all workers, unless it has its own limit."""
    worker_priority: Literal["idle", "normal"] = "idle"
    """`idle`: the kernel runs the worker when nothing else needs the CPU. `normal`: like every other process, for a
    machine of its own."""
    worker_dir: Path = Path(".dalston/worker")
    """Folder on a local disk for the decoded audio of uploaded files, 115 MB an hour; several workers may share it."""
    worker_disk_bytes: int = Field(default=20 * 1024**3, gt=0)
    """Maximum size of these files of a worker; jobs wait for room."""
    worker_poll_seconds: float = Field(default=10.0, gt=0)
    """How often a worker looks for jobs of which no notification has arrived."""
    worker_host: str = "127.0.0.1"
    """Address of `/metrics`."""
    worker_metrics_port: int = Field(default=0, ge=0, le=65535)
    """Port of `/metrics`, on `worker_host`; 0 for none."""
    worker_metrics_socket: Path | None = None
    """A Unix socket to serve `/metrics` on instead."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "json", "text"] = "auto"
