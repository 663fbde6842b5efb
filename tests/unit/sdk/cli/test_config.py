from __future__ import annotations

from pathlib import Path

import pytest
from dalston.cli.config import ConfigFile, Settings, config_path, read_config, resolve
from dalston.cli.exits import CommandError, ExitCode

FILE = ConfigFile(
    Settings("https://file", "file-key"),
    {"staging": Settings("https://staging", "staging-key"), "keyless": Settings("https://keyless")},
)
ENVIRONMENT = {"DALSTON_URL": "https://environment", "DALSTON_API_KEY": "environment-key"}


def test_file_applies_by_default() -> None:
    assert resolve(FILE, None, Settings(), {}) == Settings("https://file", "file-key")
    assert resolve(ConfigFile(), None, Settings(), {}) == Settings()


def test_named_profile_precedes_environment_and_environment_precedes_file() -> None:
    assert resolve(FILE, None, Settings(), ENVIRONMENT) == Settings("https://environment", "environment-key")
    assert resolve(FILE, "staging", Settings(), ENVIRONMENT) == Settings("https://staging", "staging-key")
    assert resolve(FILE, "keyless", Settings(), ENVIRONMENT) == Settings("https://keyless", "environment-key")


def test_key_of_the_file_is_not_sent_to_another_url() -> None:
    assert resolve(FILE, None, Settings("https://option"), {}) == Settings("https://option")
    assert resolve(FILE, "staging", Settings("https://option"), {}) == Settings("https://option")
    assert resolve(FILE, None, Settings(), {"DALSTON_URL": "https://environment"}) == Settings("https://environment")
    assert resolve(ConfigFile(Settings(None, "key")), None, Settings("https://option"), {}).api_key is None
    assert resolve(FILE, None, Settings(), {"DALSTON_URL": "https://file"}) == Settings("https://file", "file-key")


def test_key_of_the_environment_applies_to_the_url_option() -> None:
    assert resolve(FILE, None, Settings("https://option"), ENVIRONMENT) == Settings("https://option", "environment-key")


def test_unknown_profile_is_rejected() -> None:
    with pytest.raises(CommandError, match="keyless, staging") as raised:
        resolve(FILE, "production", Settings(), {})
    assert raised.value.code is ExitCode.USAGE


def test_configuration_path_follows_xdg() -> None:
    assert config_path({"XDG_CONFIG_HOME": "/config"}) == Path("/config/dalston/config.toml")
    assert config_path({"XDG_CONFIG_HOME": "relative"}) == Path("~/.config/dalston/config.toml").expanduser()
    assert config_path({}) == Path("~/.config/dalston/config.toml").expanduser()


def test_readable_file_with_a_key_is_exposed(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    assert read_config(path) == ConfigFile()
    path.write_text('url = "http://a"\n[profiles.b]\napi_key = "c"\n')
    path.chmod(0o640)
    assert read_config(path) == ConfigFile(Settings("http://a"), {"b": Settings(None, "c")}, is_exposed=True)
    path.chmod(0o600)
    assert not read_config(path).is_exposed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("url = ", "not valid TOML"),
        ("\xff", "not valid TOML"),
        ('key = "a"', "unknown setting key"),
        ("url = 1", "url must be a string"),
        ("profiles = 1", "a profile must be a table"),
        ('[profiles.b]\nuri = "c"', "unknown setting profiles.b.uri"),
    ],
)
def test_invalid_configuration_file_is_rejected_with_a_message(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(CommandError, match=message):
        read_config(path)


def test_key_is_not_in_the_representation() -> None:
    assert "file-key" not in repr(FILE)
