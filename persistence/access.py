"""Manages tenants, their limits and their first keys in the database: `python -m persistence.access`.

The database is that of DALSTON_DATABASE_URL or, if it is unset, that of the local stack on DALSTON_HOME.

create-key    creates a key, and its tenant if there is none; prints the secret once
set-limits    sets limits of a tenant; with --create it creates the tenant if there is none
tenants       lists tenants, the limits set for them, and their stored audio
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy.exc import ProgrammingError

from domain.credentials import SCOPES
from domain.errors import StorageUnavailable, TenantNotFound
from domain.tenancy import TenantLimits
from persistence.config import PersistenceSettings
from persistence.local_stack import operator_settings
from persistence.postgres.api_keys import KeyStore
from persistence.postgres.database import Database, open_database
from persistence.postgres.tenants import TenantStore
from telemetry.logs import configure_logging
from telemetry.settings import InvalidSettings

_DEFAULT = "default"
_LONGEST_NAME = 100
_GIB = 1024**3
_MOST_BYTES = 2**60


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code."""
    options = _parser().parse_args(arguments)
    configure_logging("WARNING")
    try:
        answer = asyncio.run(_run(operator_settings(), options))
    except ProgrammingError:
        print("the schema of the database is of another release: run python -m persistence.migrate", file=sys.stderr)  # noqa: T201
        return 1
    except TenantNotFound as error:
        print(f"{error} (--create makes a new one)", file=sys.stderr)  # noqa: T201
        return 1
    except (StorageUnavailable, InvalidSettings) as error:
        print(f"cannot do that: {error}", file=sys.stderr)  # noqa: T201  output of a command
        return 1 if isinstance(error, StorageUnavailable) else 2
    print(json.dumps(answer, indent=2) if options.json else _in_words(answer))  # noqa: T201
    return 0


async def _run(settings: PersistenceSettings, options: argparse.Namespace) -> Any:
    async with open_database(settings) as database:
        match options.command:
            case "create-key":
                return await _create_key(database, options)
            case "set-limits":
                given = {name: getattr(options, name) for name in TenantLimits.__slots__}
                limits = {
                    name: None if value == _DEFAULT else value for name, value in given.items() if value is not None
                }
                store = TenantStore(database)
                change = store.ensure if options.create else store.set_limits
                return (await change(options.tenant, limits)).as_values()
            case _:
                return [tenant.as_values() for tenant in await TenantStore(database).list()]


async def _create_key(database: Database, options: argparse.Namespace) -> dict[str, Any]:
    tenant = await TenantStore(database).ensure(options.tenant)
    expires_in = None if options.expires_in_seconds is None else timedelta(seconds=options.expires_in_seconds)
    key, secret = await KeyStore(database).create(tenant.id, options.name, options.scopes, expires_in)
    return {
        "id": key.key_id,
        "tenant": tenant.name,
        "name": key.name,
        "prefix": key.prefix,
        "scopes": list(key.scopes),
        "expires_at": key.expires_at.isoformat() if key.expires_at else None,
        "secret": secret,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m persistence.access", description="Tenants, limits, first keys.")
    commands = parser.add_subparsers(dest="command", required=True)
    key = commands.add_parser("create-key", help="create a key, and its tenant if there is none")
    key.add_argument("--tenant", type=_name, required=True)
    key.add_argument("--name", type=_name, required=True, help="the name of the key")
    key.add_argument("--scopes", type=_scopes, required=True, help=f"of {','.join(SCOPES)}, separated by commas")
    key.add_argument("--expires-in-seconds", type=_seconds, help="default: never")
    limits = commands.add_parser("set-limits", help="set limits of a tenant; `default` is the server's own")
    limits.add_argument("--tenant", type=_name, required=True)
    limits.add_argument("--create", action="store_true", help="create the tenant if there is none of this name")
    limits.add_argument("--max-sessions", type=_count, help="that run at a time, on all servers")
    limits.add_argument("--requests-per-second", type=_rate, help="on each server")
    limits.add_argument("--max-session-seconds", type=_rate)
    limits.add_argument("--idle-timeout-seconds", type=_rate)
    storage = limits.add_mutually_exclusive_group()
    storage.add_argument("--max-storage-bytes", type=_bytes, help="of stored audio, all sessions together")
    storage.add_argument("--max-storage-gib", dest="max_storage_bytes", type=_gibibytes, help="the same in GiB")
    limits.add_argument("--max-jobs", type=_count, help="batch jobs that run at a time, on all workers")
    limits.add_argument("--max-queued-jobs", type=_count, help="batch jobs that wait")
    every = [key, limits, commands.add_parser("tenants", help="list tenants, their limits and what they store")]
    for each in every:
        each.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _name(text: str) -> str:
    if not 1 <= len(text) <= _LONGEST_NAME or not text.isprintable():
        raise argparse.ArgumentTypeError(f"must be 1 to {_LONGEST_NAME} printable characters")
    return text


def _scopes(text: str) -> list[str]:
    scopes = text.split(",")
    if unknown := sorted(set(scopes) - set(SCOPES)):
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {','.join(SCOPES)}")
    return scopes


def _seconds(text: str) -> int:
    return int(_bounded(text, int, 60, 315_360_000))


def _count(text: str) -> int | str:
    return text if text == _DEFAULT else int(_bounded(text, int, 0, 1_000_000))


def _rate(text: str) -> float | str:
    return text if text == _DEFAULT else _bounded(text, float, 0.001, 1_000_000)


def _bytes(text: str) -> int | str:
    return text if text == _DEFAULT else int(_bounded(text, int, 0, _MOST_BYTES))


def _gibibytes(text: str) -> int | str:
    return text if text == _DEFAULT else int(_bounded(text, float, 0, _MOST_BYTES / _GIB) * _GIB)


def _bounded(text: str, kind: type[int] | type[float], least: float, most: float) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = -1
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"must be {least:g} to {most:.0f}")
    return value


def _in_words(answer: Any) -> str:
    if isinstance(answer, list):
        return "\n\n".join(_in_words(each) for each in answer)
    return "\n".join(
        f"{name + ':':<22} {', '.join(value) if isinstance(value, list) else 'default' if value is None else value}"
        for name, value in answer.items()
        if value is not None or name in TenantLimits.__slots__
    )


if __name__ == "__main__":
    sys.exit(main())
