"""The environment variables that the programs read, so that a mistyped one is reported."""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

from telemetry.logs import get_logger

log = get_logger(__name__)

_PREFIX: Final = "DALSTON_"
_NAMES: Final = (
    # The server and its engine
    "ALLOW_UNAUTHENTICATED AUTH IDLE_TIMEOUT_SECONDS LOG_FORMAT LOG_LEVEL MAX_QUEUE_DELAY_SECONDS MAX_SESSIONS "
    "MAX_SESSION_SECONDS MAX_UPLOAD_BYTES METRICS_PORT METRICS_SOCKET SERVER_HOST SERVER_PORT SERVER_SOCKET "
    "SHUTDOWN_SECONDS TENANT_MAX_DOWNLOADS TENANT_MAX_QUEUED_JOBS TENANT_MAX_SESSIONS TENANT_MAX_STORAGE_BYTES "
    "TENANT_MAX_UPLOADS TENANT_MAX_WATCHES TENANT_REQUESTS_PER_SECOND TENANT_SHARE BATCH_LIMIT BEAMS CACHE_DIR DEVICE "
    "MODELS PARTIAL_SHARE SPARE_BEAMS THREADS "
    # Storage
    "DATABASE_DEADLINE_SECONDS DATABASE_POOL_SIZE DATABASE_URL DELETE_AGE_SECONDS FLUSH_SECONDS FSYNC_SECONDS "
    "JOB_RETRY_SECONDS LEASE_RENEWAL_SECONDS LEASE_SECONDS ORPHAN_AGE_SECONDS REAP_SECONDS RECOVERY_GRACE_SECONDS "
    "RESUME_WAIT_SECONDS S3_ACCESS_KEY_ID S3_BUCKET S3_DEADLINE_SECONDS S3_ENDPOINT_URL S3_REGION "
    "S3_SECRET_ACCESS_KEY SPOOL_BYTES SPOOL_DIR SPOOL_WAIT_SECONDS STORE_WAIT_SECONDS SWEEP_SECONDS "
    "VANISHED_GRACE_SECONDS WORKER_ID "
    # The worker
    "JOBS_AT_ONCE TENANT_MAX_JOBS WORKER_DIR WORKER_DISK_BYTES WORKER_HOST WORKER_METRICS_PORT WORKER_METRICS_SOCKET "
    "WORKER_POLL_SECONDS WORKER_PRIORITY "
    # The bridge
    "ALLOWED_ORIGINS BRIDGE_BEGIN_SECONDS BRIDGE_CLOSE_SECONDS BRIDGE_CONFIGURE_SECONDS "
    "BRIDGE_FINISH_SECONDS BRIDGE_HANDSHAKE_SECONDS "
    "BRIDGE_HOST BRIDGE_MAX_CONNECTIONS BRIDGE_METRICS_PORT BRIDGE_PING_INTERVAL_SECONDS "
    "BRIDGE_PING_TIMEOUT_SECONDS BRIDGE_PORT BRIDGE_SETTLE_SECONDS BRIDGE_SOCKET BRIDGE_STALL_SECONDS "
    "BRIDGE_STUCK_SECONDS SERVER_TARGET "
    # Uploads
    "MODEL_ALIASES UPLOADS_HOST UPLOADS_IDLE_SECONDS UPLOADS_MAX_REQUESTS UPLOADS_METRICS_PORT "
    "UPLOADS_PORT UPLOADS_RECEIVE_SECONDS UPLOADS_SOCKET UPLOADS_STALL_SECONDS UPLOADS_STUCK_SECONDS "
    "UPLOADS_WAIT_SECONDS "
    # The local stack, and clients
    "ADDRESS_REQUESTS_PER_SECOND ALLOW_PLAINTEXT CONSOLE ENHANCE HOME HOST PORT TLS_CERT TLS_KEY TRUSTED_PROXIES "
    "API_KEY URL"
)
VARIABLES: Final = frozenset(_PREFIX + name for name in _NAMES.split())
"""The names of all programs, which are started from one environment. A test compares them with the settings."""


def unknown_variables(environment: Mapping[str, str] = os.environ) -> dict[str, str | None]:
    """Names that begin with DALSTON_ and that no program reads, each with the most similar known name, or None."""
    found = {}
    for name in sorted(environment):
        # Names are read whatever their case.
        if name.upper().startswith(_PREFIX) and name.upper() not in VARIABLES:
            near = get_close_matches(name.upper().removeprefix(_PREFIX), _NAMES.split(), n=1)
            found[name] = _PREFIX + near[0] if near else None
    return found


def warn_of_unknown_variables() -> None:
    """Logs one warning for each of them, without its value, which may be a secret."""
    for name, near in unknown_variables().items():
        log.warning("unknown environment variable is ignored", variable=name, nearest=near)
