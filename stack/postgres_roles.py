"""The two roles of the local stack's Postgres: the superuser, and the application's role, which owns its database and
nothing else."""

import asyncio
import base64
import hashlib
import hmac
import secrets
import threading
from collections.abc import Coroutine
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # published without types

from stack.errors import CannotStart

ADMIN = "postgres"
OWNER = "dalston"
"""The name of the role and of the database."""
ADMIN_PASSWORD = "admin-password"  # noqa: S105 - the name of a file
ADMIN_PASSWORD_TO_BE = "admin-password.new"  # noqa: S105

_HELPER = "dalston_upgrade"
_ITERATIONS = 4096
_SECONDS = 30.0


def url(port: int, role: str, password: str) -> str:
    return f"postgresql://{role}:{password}@127.0.0.1:{port}/{OWNER}"


def verifier(password: str) -> str:
    """The verifier that Postgres stores for a password (RFC 5803); it does not reveal the password."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    words = [base64.b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${_ITERATIONS}:{words[0]}${words[1]}:{words[2]}"


def creation(password: str, rights: str) -> str:
    """The statements that create role and database in a new cluster; `rights` are SQL attributes of the role."""
    role = f"CREATE ROLE {OWNER} LOGIN {rights} PASSWORD '{verifier(password)}'"
    return f"{role};\n\nCREATE DATABASE {OWNER} OWNER {OWNER};\n\n"


def separate(port: int, password: str, admin_password: str) -> None:
    """Migrates a cluster of an earlier version, whose one role is superuser and owner, to the two roles.

    It can be repeated after any of its steps.

    Raises:
        CannotStart: it cannot be done.
    """
    _in_own_loop(_separate(port, password, admin_password))


async def _separate(port: int, password: str, admin_password: str) -> None:
    try:
        if not await _connects(port, ADMIN, admin_password):
            # A role cannot rename itself, and the first role of a cluster must stay superuser.
            await _execute(port, OWNER, password, _MAKE_HELPER.format(verifier=verifier(admin_password)))
            await _execute(
                port,
                _HELPER,
                admin_password,
                _SEPARATE.format(admin=verifier(admin_password), owner=verifier(password)),
            )
        await _execute(port, ADMIN, admin_password, f"DROP ROLE IF EXISTS {_HELPER}")
    except (OSError, asyncpg.PostgresError, TimeoutError) as error:
        raise CannotStart(f"Postgres' data of an earlier version cannot be given to its new role: {error}") from error


_MAKE_HELPER = f"""
    DROP ROLE IF EXISTS {_HELPER};
    CREATE ROLE {_HELPER} SUPERUSER LOGIN PASSWORD '{{verifier}}';
"""

# In one transaction. The owner of a sequence that belongs to a column follows that of the table.
_SEPARATE = f"""
    BEGIN;
    ALTER ROLE {OWNER} RENAME TO {ADMIN};
    ALTER ROLE {ADMIN} PASSWORD '{{admin}}';
    CREATE ROLE {OWNER} LOGIN PASSWORD '{{owner}}';
    ALTER DATABASE {OWNER} OWNER TO {OWNER};
    DO $$
    DECLARE
        statement text;
    BEGIN
        FOR statement IN
            SELECT format('ALTER TABLE %s OWNER TO {OWNER}', relation.oid::regclass)
            FROM pg_class AS relation
            WHERE relation.relnamespace = 'public'::regnamespace
                AND relation.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
                AND NOT EXISTS (
                    SELECT FROM pg_depend
                    WHERE classid = 'pg_class'::regclass AND objid = relation.oid
                        AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i')
                )
            UNION ALL
            SELECT format('ALTER ROUTINE %s OWNER TO {OWNER}', oid::regprocedure)
            FROM pg_proc
            WHERE pronamespace = 'public'::regnamespace
            UNION ALL
            SELECT format('ALTER TYPE %s OWNER TO {OWNER}', oid::regtype)
            FROM pg_type
            WHERE typnamespace = 'public'::regnamespace AND typtype IN ('e', 'd')
        LOOP
            EXECUTE statement;
        END LOOP;
    END
    $$;
    COMMIT;
"""  # noqa: S608 - of constants  # noqa: S608 - of constants


async def _connects(port: int, role: str, password: str) -> bool:
    try:
        await _execute(port, role, password, "SELECT 1")
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError):
        return False
    return True


async def _execute(port: int, role: str, password: str, statements: str) -> None:
    async with asyncio.timeout(_SECONDS):
        connection = await asyncpg.connect(url(port, role, password))
        try:
            await connection.execute(statements)
        finally:
            await connection.close()


def _in_own_loop(work: Coroutine[Any, Any, None]) -> None:
    """Runs in a thread, because the caller may run in a loop."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(work)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
