"""`dalston keys` and `dalston tokens`."""

from __future__ import annotations

import json as json_module
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from dalston.cli import connection, operator_commands, output
from dalston.cli.app import App
from dalston.cli.exits import usage

if TYPE_CHECKING:
    from dalston.records import Key, Login

app = App(help="Create, list and revoke API keys and their logins.")
tokens = App(help="Create tokens for browsers.")

SCOPES = ("realtime", "sessions:read", "sessions:write", "admin")
_COLUMNS = ("ID", "NAME", "SCOPES", "REVOKED", "LAST USED", "EXPIRES", "CREATED", "PREFIX", "CREATED BY")
_LOGIN_COLUMNS = ("ID", "LAST USED", "EXPIRES", "CREATED", "BROWSER")

KeyId = Annotated[str, typer.Argument(metavar="ID", help="Id of the key, such as key_0190...", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON as in the REST API.")]
Expiry = Annotated[int | None, typer.Option(metavar="SECONDS", help="Lifetime.", show_default=False)]


@app.command()
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the key.", show_default=False)],
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", "-s", metavar="SCOPE", help=f"Scope of the key, repeatable: {', '.join(SCOPES)}."),
    ] = None,
    expires_in_seconds: Expiry = None,
    first: Annotated[
        bool, typer.Option("--first", help="Create the first key of a tenant, directly in the database.")
    ] = False,
    tenant: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --first: the tenant, created if it does not exist.")
    ] = None,
    json: Json = False,
) -> None:
    """Create a key.

    Standard output contains only the secret, which is never shown again: KEY=$(dalston keys create ...).

    To create the first key of a tenant, run `dalston keys create NAME --first --tenant TENANT` where a server is
    installed, with its DALSTON_DATABASE_URL. That key has all scopes unless --scope is given.
    """
    scopes = [each for item in scope or () for each in item.split(",")]
    if unknown := [each for each in scopes if each not in SCOPES]:
        raise usage(f"unknown scope {unknown[0]!r}; the scopes are {', '.join(SCOPES)}")
    if first != (tenant is not None):
        raise usage("--first and --tenant require each other")
    if tenant is not None:
        _create_first(tenant, name, scopes or list(SCOPES), expires_in_seconds, json=json)
        return
    if not scopes:
        raise usage(f"add a scope, such as --scope realtime; the scopes are {', '.join(SCOPES)}")
    with connection.connect(ctx) as client:
        made = client.keys.create(name, scopes, expires_in_seconds=expires_in_seconds)
    if json:
        output.print_json({"key": made.key, "secret": made.secret})
        return
    output.note(f"created {made.key.id} ({made.key.name}); its secret is not shown again")
    output.print_line(made.secret)


@app.command("list")
def list_(ctx: typer.Context, json: Json = False) -> None:
    """List keys, newest first, including revoked and expired ones."""
    with connection.connect(ctx) as client:
        keys = list(client.keys.list())
    if json:
        output.print_json({"keys": keys})
    else:
        output.print_table(_COLUMNS, map(_row, keys))


@app.command()
def revoke(
    ctx: typer.Context,
    key_id: KeyId,
    json: Json = False,
) -> None:
    """Revoke a key.

    Within seconds every server rejects the key and ends its live sessions. Keys that were created with it stay valid,
    and are listed.
    """
    with connection.connect(ctx) as client:
        key = client.keys.revoke(key_id)
        for made in client.keys.list():
            if made.created_by == key.id and made.revoked_at is None:
                output.note(f"{made.id} ({made.name}) was created with this key and stays valid: revoke it separately")
    if json:
        output.print_json(key)
    else:
        output.print_line(f"revoked {key.id} ({key.name})")


@app.command()
def logins(ctx: typer.Context, key_id: KeyId, json: Json = False) -> None:
    """List the logins of a key, newest first."""
    with connection.connect(ctx) as client:
        found = client.keys.logins(key_id)
    if json:
        output.print_json({"logins": found})
    else:
        output.print_table(_LOGIN_COLUMNS, map(_login_row, found))


@app.command("revoke-login")
def revoke_login(
    ctx: typer.Context,
    key_id: KeyId,
    login_id: Annotated[
        str, typer.Argument(metavar="LOGIN", help="Id of the login, such as login_0190...", show_default=False)
    ],
) -> None:
    """End a login of a key, which stays valid.

    Within seconds every server rejects the login.
    """
    with connection.connect(ctx) as client:
        client.keys.revoke_login(key_id, login_id)
    output.print_line(f"revoked {login_id}")


@tokens.command("create")
def create_token(ctx: typer.Context, expires_in_seconds: Expiry = None, json: Json = False) -> None:
    """Create a token that opens one live session, once.

    Tokens are for clients that must not hold a key, such as pages in a browser.
    """
    with connection.connect(ctx) as client:
        made = client.tokens.create(expires_in_seconds=expires_in_seconds)
    if json:
        output.print_json({"token": made.token, "expires_at": made.expires_at})
        return
    if made.expires_at is not None:
        output.note(f"the token opens one session and expires at {made.expires_at.astimezone():%H:%M:%S}")
    output.print_line(made.token)


def _create_first(tenant: str, name: str, scopes: list[str], expires_in: int | None, *, json: bool) -> None:
    expiry = [] if expires_in is None else [f"--expires-in-seconds={expires_in}"]
    arguments = ["create-key", f"--tenant={tenant}", f"--name={name}", f"--scopes={','.join(scopes)}", *expiry]
    code, answer = operator_commands.answer("persistence.access", [*arguments, "--json"])
    if code != 0:
        raise typer.Exit(code)
    made = json_module.loads(answer)
    secret = made.pop("secret")
    if json:
        output.print_json({"key": made, "secret": secret})
        return
    output.note(f"created {made['id']} ({name}) of tenant {tenant}; its secret is not shown again")
    output.print_line(secret)


def _login_row(login: Login) -> tuple[str, ...]:
    times = (login.last_used_at, login.expires_at, login.created_at)
    return (login.id, *map(_day, times), login.user_agent or "-")


def _day(time: datetime | None) -> str:
    if time is None:
        return "-"
    local = time.astimezone()
    return f"{local:%Y-%m-%d %H:%M}" if output.is_terminal(sys.stdout) else local.isoformat(timespec="seconds")


def _row(key: Key) -> tuple[str, ...]:
    times = (key.revoked_at, key.last_used_at, key.expires_at, key.created_at)
    return (key.id, key.name, ",".join(sorted(key.scopes)), *map(_day, times), key.prefix, key.created_by or "-")
