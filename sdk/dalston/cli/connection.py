"""From the options of the command line to a client."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dalston.cli import output
from dalston.cli.config import Place, choose, config_path, read_config
from dalston.cli.exits import usage
from dalston.cli.interrupts import leaving_at_once

if TYPE_CHECKING:
    from dalston.calls import Calls
    from dalston.client import Client


@dataclass(frozen=True, slots=True)
class Options:
    """What stands before the command."""

    given: Place = field(default_factory=Place)
    profile: str | None = None
    timeout: float = 5.0
    """Seconds."""


def place(ctx: typer.Context) -> Place:
    """The service to call, and as whom.

    Raises:
        CommandError: the configuration is wrong.
    """
    options: Options = ctx.obj
    path = config_path()
    config = read_config(path)
    if config.is_open:
        output.note(f"warning: others can read {path}, and it has a key: chmod 600 {path}")
    return choose(config, options.profile, options.given, os.environ)


def connect(ctx: typer.Context) -> Client:
    """A client of the service.

    Raises:
        CommandError: the URL, the key or the configuration cannot be.
    """
    with leaving_at_once():
        from dalston.client import Client

    where, options = place(ctx), ctx.obj
    _check(where)
    try:
        return Client(where.url, where.api_key, ca_file=where.ca_file, timeout=options.timeout)
    except ValueError as error:
        raise usage(str(error)) from None


def calls(ctx: typer.Context) -> Calls:
    """The calls beneath a client; raises as `connect`."""
    with leaving_at_once():
        from dalston.calls import Calls
        from dalston.endpoint import find_endpoint

    where, options = place(ctx), ctx.obj
    _check(where)
    try:
        return Calls(find_endpoint(where.url, where.api_key, where.ca_file), options.timeout)
    except ValueError as error:
        raise usage(str(error)) from None


def _check(where: Place) -> None:
    if where.ca_file is not None and not Path(where.ca_file).is_file():
        raise usage(f"there is no file of certificates {where.ca_file}")
