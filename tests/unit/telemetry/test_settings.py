import pytest
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from telemetry.settings import InvalidSettings, read_settings


class Example(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="DALSTON_", frozen=True)

    port: int = Field(default=1, ge=1)
    names: dict[str, str] = {}
    secret: SecretStr = Field(default=SecretStr("x" * 9), min_length=8)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DALSTON_PORT", "7")
    assert read_settings(Example).port == 7


@pytest.mark.parametrize(
    ("variable", "value"), [("DALSTON_PORT", "seven"), ("DALSTON_PORT", "0"), ("DALSTON_NAMES", "fast=base")]
)
def test_a_wrong_value_is_one_sentence_that_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidSettings, match=f"^{variable}: [^\n]+$"):
        read_settings(Example)


def test_a_wrong_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DALSTON_SECRET", "hunter2")
    with pytest.raises(InvalidSettings) as raised:
        read_settings(Example)
    assert "hunter2" not in str(raised.value)
