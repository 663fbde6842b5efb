"""The configuration file, and its precedence against the environment and the command line.

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
class Settings:
    """The address of a service and the key; None for unset values."""

    url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    ca_file: str | None = None


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The content of the configuration file."""

    default: Settings = field(default_factory=Settings)
    profiles: Mapping[str, Settings] = field(default_factory=dict)
    is_exposed: bool = False
    """Whether it contains a key and other users can read it."""


def config_path(environment: Mapping[str, str] = os.environ) -> Path:
    """The path of the configuration file, which need not exist."""
    home = environment.get("XDG_CONFIG_HOME") or ""
    folder = Path(home) if Path(home).is_absolute() else Path("~/.config").expanduser()
    return folder / "dalston" / "config.toml"


def read_config(path: Path) -> ConfigFile:
    """Reads the file. A missing file is an empty configuration.

    Raises:
        CommandError: the file cannot be read, or its content is invalid.
    """
    import tomllib

    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = tomllib.loads(file.read(_LARGEST_BYTES).decode())
    except FileNotFoundError:
        return ConfigFile()
    except OSError as error:
        raise usage(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:  # Invalid TOML or UTF-8.
        raise usage(f"{path} is not valid TOML: {error}") from None
    tables = content.pop("profiles", {})
    if not isinstance(tables, dict) or not all(isinstance(each, dict) for each in tables.values()):
        raise usage(f"{path}: a profile must be a table, such as [profiles.staging]")
    default = _settings(path, "", content)
    profiles = {name: _settings(path, f"profiles.{name}.", each) for name, each in tables.items()}
    has_key = any(settings.api_key for settings in (default, *profiles.values()))
    return ConfigFile(default, profiles, has_key and os.name == "posix" and bool(mode & 0o077))


def _settings(path: Path, prefix: str, content: Mapping[str, Any]) -> Settings:
    for name, value in content.items():
        if name not in _NAMES:
            raise usage(f"{path}: unknown setting {prefix}{name}; the settings are {', '.join(_NAMES)}")
        if not isinstance(value, str):
            raise usage(f"{path}: {prefix}{name} must be a string")
    return Settings(**content)


def resolve(config: ConfigFile, profile: str | None, given: Settings, environment: Mapping[str, str]) -> Settings:
    """The settings in effect: the command line, then the selected profile, the environment, and the file's defaults.

    A key in the file belongs to the URL next to it: it is not sent to a URL from another source.

    Raises:
        CommandError: the profile does not exist.
    """
    if profile is not None and profile not in config.profiles:
        known = ", ".join(sorted(config.profiles)) or "none"
        raise usage(f"the configuration file has no profile {profile!r}; its profiles: {known}")
    outer = Settings(environment.get("DALSTON_URL") or None, environment.get("DALSTON_API_KEY") or None)
    named = config.profiles[profile] if profile is not None else None
    kept = named or config.default
    order: tuple[Settings, ...] = (given, named, outer) if named else (given, outer, config.default)
    url = next((settings.url for settings in order if settings.url), None)
    if kept.url != url:
        order = tuple(settings for settings in order if settings is not kept)

    def first(name: str) -> str | None:
        return next((value for settings in order if (value := getattr(settings, name))), None)

    return Settings(url, first("api_key"), first("ca_file"))
