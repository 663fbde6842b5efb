"""Settings from the environment, or one sentence about the mistake in them."""

import re
from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsError

S = TypeVar("S", bound=BaseSettings)

_FIELD = re.compile(r'field "(\w+)"')


class InvalidSettings(Exception):
    """The environment is invalid. The message names the variables and shows no value, which may be a secret."""


def read_settings(kind: type[S]) -> S:
    """Reads `kind` from `DALSTON_*` in the environment.

    Raises:
        InvalidSettings: a value is wrong.
    """
    try:
        return kind()
    except ValidationError as error:
        problems = (_sentence(problem["loc"], problem["msg"]) for problem in error.errors(include_input=False))
        raise InvalidSettings("; ".join(problems)) from None
    except SettingsError as error:
        field = _FIELD.search(str(error))
        raise InvalidSettings(f"{_variable(field[1] if field else 'settings')}: is not valid JSON") from None


def _sentence(location: tuple[int | str, ...], message: str) -> str:
    # Pydantic begins the messages of our own validators with this.
    message = message.removeprefix("Value error, ")
    # An error that concerns several variables has no location, and its message names them.
    return f"{_variable(*location)}: {message}" if location else message


def _variable(*location: str | int) -> str:
    return "DALSTON_" + "_".join(str(part) for part in location).upper()
