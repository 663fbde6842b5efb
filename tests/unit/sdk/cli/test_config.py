from __future__ import annotations

from pathlib import Path

import pytest
from dalston.cli.config import ConfigFile, Place, choose, config_path, read_config
from dalston.cli.exits import CommandError, ExitCode

FILE = ConfigFile(
    Place("https://file", "file-key"),
    {"staging": Place("https://staging", "staging-key"), "keyless": Place("https://keyless")},
)
ENVIRONMENT = {"DALSTON_URL": "https://environment", "DALSTON_API_KEY": "environment-key"}


def test_the_file_counts_where_nothing_else_is_said() -> None:
    assert choose(FILE, None, Place(), {}) == Place("https://file", "file-key")
    assert choose(ConfigFile(), None, Place(), {}) == Place()


def test_the_environment_counts_before_the_file_and_a_named_profile_before_both() -> None:
    assert choose(FILE, None, Place(), ENVIRONMENT) == Place("https://environment", "environment-key")
    assert choose(FILE, "staging", Place(), ENVIRONMENT) == Place("https://staging", "staging-key")
    assert choose(FILE, "keyless", Place(), ENVIRONMENT) == Place("https://keyless", "environment-key")


def test_a_key_of_the_file_is_not_sent_to_another_url() -> None:
    assert choose(FILE, None, Place("https://option"), {}) == Place("https://option")
    assert choose(FILE, "staging", Place("https://option"), {}) == Place("https://option")
    assert choose(FILE, None, Place(), {"DALSTON_URL": "https://environment"}) == Place("https://environment")
    assert choose(ConfigFile(Place(None, "key")), None, Place("https://option"), {}).api_key is None
    assert choose(FILE, None, Place(), {"DALSTON_URL": "https://file"}) == Place("https://file", "file-key")


def test_a_key_of_the_environment_goes_where_the_command_line_says() -> None:
    assert choose(FILE, None, Place("https://option"), ENVIRONMENT) == Place("https://option", "environment-key")


def test_a_profile_that_is_not_there_is_refused() -> None:
    with pytest.raises(CommandError, match="keyless, staging") as raised:
        choose(FILE, "production", Place(), {})
    assert raised.value.code is ExitCode.USAGE


def test_the_path_is_that_of_xdg() -> None:
    assert config_path({"XDG_CONFIG_HOME": "/config"}) == Path("/config/dalston/config.toml")
    assert config_path({"XDG_CONFIG_HOME": "relative"}) == Path("~/.config/dalston/config.toml").expanduser()
    assert config_path({}) == Path("~/.config/dalston/config.toml").expanduser()


def test_a_file_that_others_can_read_is_open_when_it_has_a_key(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    assert read_config(path) == ConfigFile()
    path.write_text('url = "http://a"\n[profiles.b]\napi_key = "c"\n')
    path.chmod(0o640)
    assert read_config(path) == ConfigFile(Place("http://a"), {"b": Place(None, "c")}, is_open=True)
    path.chmod(0o600)
    assert not read_config(path).is_open


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("url = ", "not TOML"),
        ("\xff", "not TOML"),
        ('key = "a"', "no setting key"),
        ("url = 1", "url must be a string"),
        ("profiles = 1", "a profile is a table"),
        ('[profiles.b]\nuri = "c"', "no setting profiles.b.uri"),
    ],
)
def test_a_file_that_says_what_it_cannot_say_is_refused_in_words(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(CommandError, match=said):
        read_config(path)


def test_a_key_is_in_no_message() -> None:
    assert "file-key" not in repr(FILE)
