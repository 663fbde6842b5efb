from typing import Self

import pytest
from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from telemetry.settings import InvalidSettings, read_settings


class Example(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="DALSTON_", frozen=True)

    port: int = Field(default=1, ge=1)
    names: dict[str, str] = {}
    secret: SecretStr = Field(default=SecretStr("x" * 9), min_length=8)
    colour: str = "red"

    @field_validator("colour")
    @classmethod
    def _is_red_or_blue(cls, value: str) -> str:
        if value not in ("red", "blue"):
            raise ValueError("must be red or blue")
        return value

    @model_validator(mode="after")
    def _is_not_blue_on_port_two(self) -> Self:
        if self.colour == "blue" and self.port == 2:
            raise ValueError("DALSTON_COLOUR and DALSTON_PORT do not go together")
        return self


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


def test_the_message_of_a_validator_is_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DALSTON_COLOUR", "green")
    with pytest.raises(InvalidSettings, match=r"^DALSTON_COLOUR: must be red or blue$"):
        read_settings(Example)


def test_an_error_of_two_variables_names_both_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DALSTON_COLOUR", "blue")
    monkeypatch.setenv("DALSTON_PORT", "2")
    with pytest.raises(InvalidSettings, match=r"^DALSTON_COLOUR and DALSTON_PORT do not go together$"):
        read_settings(Example)
