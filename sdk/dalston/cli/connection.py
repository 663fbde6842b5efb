"""Creates a client from the options of the command line."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dalston.cli import output
from dalston.cli.config import Settings, config_path, read_config, resolve
from dalston.cli.exits import usage
from dalston.cli.interrupts import exiting_at_once

if TYPE_CHECKING:
    from dalston.calls import Calls
    from dalston.client import Client


@dataclass(frozen=True, slots=True)
class Options:
    """The options before the command."""

    given: Settings = field(default_factory=Settings)
    profile: str | None = None
    timeout: float = 5.0
    """Seconds."""


def settings(ctx: typer.Context) -> Settings:
    """The address of the service and the key.

    Raises:
        CommandError: the configuration is invalid.
    """
    options: Options = ctx.obj
    path = config_path()
    config = read_config(path)
    if config.is_exposed:
        output.note(f"warning: {path} contains a key and is readable by other users; run: chmod 600 {path}")
    return resolve(config, options.profile, options.given, os.environ)


def connect(ctx: typer.Context) -> Client:
    """A client of the service.

    Raises:
        CommandError: the URL, the key or the configuration is invalid.
    """
    with exiting_at_once():
        from dalston.client import Client

    where, options = settings(ctx), ctx.obj
    _check(where)
    try:
        return Client(where.url, where.api_key, ca_file=where.ca_file, timeout=options.timeout)
    except ValueError as error:
        raise usage(str(error)) from None


def calls(ctx: typer.Context) -> Calls:
    """The calls of a client, without the client; raises the errors of `connect`."""
    with exiting_at_once():
        from dalston.calls import Calls
        from dalston.endpoint import find_endpoint

    where, options = settings(ctx), ctx.obj
    _check(where)
    try:
        return Calls(find_endpoint(where.url, where.api_key, where.ca_file), options.timeout)
    except ValueError as error:
        raise usage(str(error)) from None


def _check(where: Settings) -> None:
    if where.ca_file is not None and not Path(where.ca_file).is_file():
        raise usage(f"the certificate file {where.ca_file} does not exist")
