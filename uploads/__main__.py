"""`python -m uploads`: exit code 0 after SIGTERM or SIGINT, 1 if the port cannot be opened, 2 for invalid settings."""

import asyncio
import sys

from telemetry.exposure import refusal_to_expose
from telemetry.logs import configure_logging
from telemetry.settings import InvalidSettings, read_settings
from telemetry.variables import warn_of_unknown_variables
from uploads.app import run
from uploads.config import UploadsSettings


def main() -> int:
    try:
        settings = read_settings(UploadsSettings)
    except InvalidSettings as error:
        return _fail(2, str(error))
    refusal = refusal_to_expose(settings.uploads_host, settings.auth, settings.allow_unauthenticated)
    if refusal is not None:
        return _fail(2, refusal)
    configure_logging(settings.log_level, settings.log_format)
    warn_of_unknown_variables()
    try:
        asyncio.run(run(settings))
    except OSError as error:
        address = settings.uploads_socket or f"{settings.uploads_host}:{settings.uploads_port}"
        return _fail(1, f"cannot listen on {address}: {error.strerror or error}")
    return 0


def _fail(code: int, sentence: str) -> int:
    sys.stderr.write(f"uploads: {sentence}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
