"""`dalston config`: shows the configuration."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dalston.cli import connection, output
from dalston.cli.app import App
from dalston.cli.config import Settings, config_path, read_config

app = App(help="Show the configuration.")


@app.command()
def path() -> None:
    """Print the path of the configuration file, whether or not it exists."""
    output.print_line(config_path())


@app.command()
def show(
    ctx: typer.Context, json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False
) -> None:
    """Show the settings in effect.

    They come from the command line, the environment and the file. Keys are never shown.
    """
    where = connection.settings(ctx)
    profiles = sorted(read_config(config_path()).profiles)
    if json:
        output.print_json({"path": str(config_path()), **_shown(where), "profiles": profiles})
        return
    pairs = [("path", str(config_path())), *((name, str(value)) for name, value in _shown(where).items())]
    output.print_fields([*pairs, ("profiles", ", ".join(profiles) or "none")])


def _shown(where: Settings) -> dict[str, Any]:
    from dalston.endpoint import DEFAULT_URL

    url = where.url or DEFAULT_URL
    return {"url": url, "api_key": "set" if where.api_key else "not set", "ca_file": where.ca_file or "system default"}
