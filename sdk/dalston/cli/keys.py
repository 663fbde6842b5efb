"""`dalston keys` and `dalston tokens`: who may call."""

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
    from dalston.records import Key

app = App(help="Make, list and revoke API keys.")
tokens = App(help="Make tokens for browsers.")

SCOPES = ("realtime", "sessions:read", "sessions:write", "admin")
_COLUMNS = ("ID", "NAME", "SCOPES", "REVOKED", "LAST USED", "EXPIRES", "CREATED", "PREFIX", "CREATED BY")

Json = Annotated[bool, typer.Option("--json", help="Print JSON, in the names of the REST API.")]
Expiry = Annotated[int | None, typer.Option(metavar="SECONDS", help="How long it is good for.", show_default=False)]


@app.command()
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is called.", show_default=False)],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope", "-s", metavar="SCOPE", help=f"What it allows, as often as needed: {', '.join(SCOPES)}."
        ),
    ] = None,
    expires_in_seconds: Expiry = None,
    first: Annotated[
        bool, typer.Option("--first", help="Against the database, for the first key of a tenant; all scopes.")
    ] = False,
    tenant: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --first: the tenant, made if it is not there.")
    ] = None,
    json: Json = False,
) -> None:
    """Makes a key.

    Its secret alone goes to standard output, this once: KEY=$(dalston keys create ...).

    The first key of a tenant is made where a server is installed: --first --tenant NAME, with DALSTON_DATABASE_URL.
    """
    scopes = [each for item in scope or () for each in item.split(",")]
    if unknown := [each for each in scopes if each not in SCOPES]:
        raise usage(f"there is no scope {unknown[0]!r}; there are {', '.join(SCOPES)}")
    if first != (tenant is not None):
        raise usage("--first and --tenant go together")
    if tenant is not None:
        _create_first(tenant, name, scopes or list(SCOPES), expires_in_seconds, json=json)
        return
    if not scopes:
        raise usage(f"say what the key allows, such as --scope realtime; there are {', '.join(SCOPES)}")
    with connection.connect(ctx) as client:
        made = client.keys.create(name, scopes, expires_in_seconds=expires_in_seconds)
    if json:
        output.say_json({"key": made.key, "secret": made.secret})
        return
    output.note(f"made {made.key.id} ({made.key.name}); its secret is shown this once")
    output.say(made.secret)


@app.command("list")
def list_(ctx: typer.Context, json: Json = False) -> None:
    """Lists keys, newest first, revoked and expired ones included."""
    with connection.connect(ctx) as client:
        keys = list(client.keys.list())
    if json:
        output.say_json({"keys": keys})
    else:
        output.say_table(_COLUMNS, map(_row, keys))


@app.command()
def revoke(
    ctx: typer.Context,
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key, such as key_0190...", show_default=False)],
    json: Json = False,
) -> None:
    """Revokes a key: within seconds it is refused everywhere.

    Its live sessions are ended. Keys that were made with it stay good, and are named.
    """
    with connection.connect(ctx) as client:
        key = client.keys.revoke(key_id)
        for made in client.keys.list():
            if made.created_by == key.id and made.revoked_at is None:
                output.note(f"{made.id} ({made.name}), which was made with it, stays good: revoke it by itself")
    if json:
        output.say_json(key)
    else:
        output.say(f"revoked {key.id} ({key.name})")


@tokens.command("create")
def create_token(ctx: typer.Context, expires_in_seconds: Expiry = None, json: Json = False) -> None:
    """Makes a token that opens one live session, once.

    It is for a client that must not hold a key, such as a page in a browser.
    """
    with connection.connect(ctx) as client:
        made = client.tokens.create(expires_in_seconds=expires_in_seconds)
    if json:
        output.say_json({"token": made.token, "expires_at": made.expires_at})
        return
    if made.expires_at is not None:
        output.note(f"it opens one session, until {made.expires_at.astimezone():%H:%M:%S}")
    output.say(made.token)


def _create_first(tenant: str, name: str, scopes: list[str], expires_in: int | None, *, json: bool) -> None:
    expiry = [] if expires_in is None else [f"--expires-in-seconds={expires_in}"]
    arguments = ["create-key", f"--tenant={tenant}", f"--name={name}", f"--scopes={','.join(scopes)}", *expiry]
    code, answer = operator_commands.answer("persistence.access", [*arguments, "--json"])
    if code != 0:
        raise typer.Exit(code)
    made = json_module.loads(answer)
    secret = made.pop("secret")
    if json:
        output.say_json({"key": made, "secret": secret})
        return
    output.note(f"made {made['id']} ({name}) of tenant {tenant}; its secret is shown this once")
    output.say(secret)


def _row(key: Key) -> tuple[str, ...]:
    def day(time: datetime | None) -> str:
        if time is None:
            return "-"
        local = time.astimezone()
        return f"{local:%Y-%m-%d %H:%M}" if output.is_terminal(sys.stdout) else local.isoformat(timespec="seconds")

    times = (key.revoked_at, key.last_used_at, key.expires_at, key.created_at)
    return (key.id, key.name, ",".join(sorted(key.scopes)), *map(day, times), key.prefix, key.created_by or "-")
