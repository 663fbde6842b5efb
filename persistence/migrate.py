"""Brings the database to the current schema: `python -m persistence.migrate`."""

import sys
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]  # published without types
from alembic import command
from alembic.config import Config
from sqlalchemy.exc import DBAPIError

from persistence.config import PersistenceSettings
from telemetry.logs import configure_logging
from telemetry.settings import InvalidSettings, read_settings
from telemetry.variables import warn_of_unknown_variables

_ROOT = Path(__file__).resolve().parent.parent


def alembic_config(database_url: str) -> Config:
    """Alembic's configuration for a database, whatever the current directory."""
    config = Config(_ROOT / "alembic.ini")
    config.set_main_option("script_location", str(_ROOT / "migrations"))
    config.attributes["database_url"] = database_url
    return config


def migrate(database_url: str) -> None:
    """Applies the pending migrations; several processes may do so at the same time.

    Runs an event loop of its own: call it where none runs.

    Raises:
        OSError, DBAPIError, PostgresError: the database is unavailable, or a migration cannot be applied.
    """
    command.upgrade(alembic_config(database_url), "head")


def main() -> int:
    """Migrates the configured database; returns the exit code."""
    configure_logging()
    warn_of_unknown_variables()
    try:
        settings = read_settings(PersistenceSettings)
        migrate(settings.database_url.get_secret_value())
    except InvalidSettings as error:
        print(error, file=sys.stderr)  # noqa: T201  output of a command
        return 2
    except (OSError, DBAPIError, asyncpg.PostgresError) as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        print(f"cannot migrate the database: {reason}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
