"""The configuration file, and what of it, the environment and the command line counts.

url = "https://dalston.example.com"
api_key = "dk_..."

[profiles.staging]
url = "https://staging.example.com"
api_key = "dk_..."
ca_file = "/etc/ssl/staging.pem"
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dalston.cli.exits import usage

_NAMES = ("url", "api_key", "ca_file")
_LARGEST_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """Where a service is, and as whom to call it; None for what is not said."""

    url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    ca_file: str | None = None


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What the file says."""

    default: Place = field(default_factory=Place)
    profiles: Mapping[str, Place] = field(default_factory=dict)
    is_open: bool = False
    """Whether it has a key and others can read it."""


def config_path(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the file is, or would be."""
    home = environment.get("XDG_CONFIG_HOME") or ""
    folder = Path(home) if Path(home).is_absolute() else Path("~/.config").expanduser()
    return folder / "dalston" / "config.toml"


def read_config(path: Path) -> ConfigFile:
    """Reads the file; one that is not there says nothing.

    Raises:
        CommandError: it cannot be read, or says what it cannot say.
    """
    import tomllib

    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = tomllib.loads(file.read(_LARGEST_BYTES).decode())
    except FileNotFoundError:
        return ConfigFile()
    except OSError as error:
        raise usage(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # What is not TOML, or not UTF-8.
        raise usage(f"{path} is not TOML: {error}") from None
    tables = content.pop("profiles", {})
    if not isinstance(tables, dict) or not all(isinstance(each, dict) for each in tables.values()):
        raise usage(f"{path}: a profile is a table, such as [profiles.staging]")
    default = _place(path, "", content)
    profiles = {name: _place(path, f"profiles.{name}.", each) for name, each in tables.items()}
    has_key = any(place.api_key for place in (default, *profiles.values()))
    return ConfigFile(default, profiles, has_key and os.name == "posix" and bool(mode & 0o077))


def _place(path: Path, prefix: str, content: Mapping[str, Any]) -> Place:
    for name, value in content.items():
        if name not in _NAMES:
            raise usage(f"{path}: there is no setting {prefix}{name}; there are {', '.join(_NAMES)}")
        if not isinstance(value, str):
            raise usage(f"{path}: {prefix}{name} must be a string")
    return Place(**content)


def choose(config: ConfigFile, profile: str | None, given: Place, environment: Mapping[str, str]) -> Place:
    """What counts: the command line, then a profile that was named, the environment, and the file's own.

    A key in the file belongs to the URL beside it: it is not sent to a URL that was said elsewhere.

    Raises:
        CommandError: there is no such profile.
    """
    if profile is not None and profile not in config.profiles:
        known = ", ".join(sorted(config.profiles)) or "none"
        raise usage(f"there is no profile {profile!r} in the configuration file; there is {known}")
    outer = Place(environment.get("DALSTON_URL") or None, environment.get("DALSTON_API_KEY") or None)
    named = config.profiles[profile] if profile is not None else None
    kept = named or config.default
    order: tuple[Place, ...] = (given, named, outer) if named else (given, outer, config.default)
    url = next((place.url for place in order if place.url), None)
    if kept.url != url:
        order = tuple(place for place in order if place is not kept)

    def first(name: str) -> str | None:
        return next((value for place in order if (value := getattr(place, name))), None)

    return Place(url, first("api_key"), first("ca_file"))
