"""The query string of the handshake: parameters of the session, and the key of a client that cannot set headers.

This module checks the form only: that a name exists, is given once, and has a value of its type. The server checks the
values, for all protocols alike.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

from dalston.v1.transcription_pb2 import TranscribeConfig
from google.protobuf.descriptor import FieldDescriptor

from bridge.protocols.interface import MAX_QUERY_BYTES
from edge.refusal import Refused

KEY_NAMES = ("api_key", "token")
UNSUPPORTED = ("retention",)
"""Parameters of other Dalston services that this one accepts and ignores; the client is warned."""
MAY_BE_EMPTY = ("language", "model", "encoding", "vocabulary")
"""Parameters of which an empty value means the default: clients send all fields of a form."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """The content of a query string."""

    config: TranscribeConfig
    key: str | None = field(default=None, repr=False)
    """The caller's key, which must not be logged."""
    unsupported: tuple[str, ...] = ()
    """Names of parameters that are ignored."""


def parse_query(query: str) -> Parameters:
    """Reads the part of the address after `?`, still percent-encoded.

    Raises:
        Refused: INVALID_PARAMETERS, with the wrong parameter and its valid values in the message.
    """
    if len(query) > MAX_QUERY_BYTES:
        raise _refused(f"the query string is longer than {MAX_QUERY_BYTES} bytes")
    values: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        name, value = _split(pair)
        if name in values:
            raise _refused(f"{name} is given more than once")
        values[name] = value
    given_keys = [name for name in KEY_NAMES if name in values]
    if len(given_keys) > 1:
        raise _refused("give either api_key or token, not both")
    key = values.pop(given_keys[0]) if given_keys else None
    unsupported = tuple(name for name in values if name in UNSUPPORTED)
    return Parameters(
        _config({name: value for name, value in values.items() if value and name in _PARSERS}), key, unsupported
    )


def _split(pair: str) -> tuple[str, str]:
    raw_name, equals, raw_value = pair.partition("=")
    try:
        name = unquote_plus(raw_name, errors="strict")
        value = unquote_plus(raw_value, errors="strict")
    except UnicodeDecodeError:
        raise _refused("the query string is not UTF-8, percent-encoded") from None
    if name not in _PARSERS and name not in KEY_NAMES and name not in UNSUPPORTED:
        # Without `=` it may be a bare key, so the message does not repeat it.
        shown = f"unknown parameter {_shown(name)}; " if equals else "a part of the query string is not NAME=VALUE; "
        raise _refused(f"{shown}known are {', '.join((*_PARSERS, *KEY_NAMES))}")
    if not value and name not in (*MAY_BE_EMPTY, *UNSUPPORTED):
        raise _refused(f"{name} is empty")
    return name, value


def _config(values: dict[str, str]) -> TranscribeConfig:
    return TranscribeConfig(**{name: _PARSERS[name](name, value) for name, value in values.items()})


def _text(_name: str, value: str) -> str:
    return value


def _flag(name: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise _refused(f"{name} must be true or false, not {_shown(value)}")
    return value == "true"


def _whole(name: str, value: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,10}", value) or not -(2**31) <= int(value) < 2**31:
        raise _refused(f"{name} must be a whole number, not {_shown(value)}")
    return int(value)


def _number(name: str, value: str) -> float:
    # A pattern, because float() also takes "nan", "1_000" and digits of other scripts.
    if not re.fullmatch(r"-?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?", value) or not math.isfinite(float(value)):
        raise _refused(f"{name} must be a number, not {_shown(value)}")
    return float(value)


def _texts(name: str, value: str) -> list[str]:
    try:
        items = json.loads(value)
        json.dumps(items, ensure_ascii=False).encode()  # JSON can spell half of a surrogate pair, protobuf cannot.
    except (ValueError, RecursionError):
        items = None
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise _refused(f'{name} must be a JSON array of strings, such as ["Dalston","Hackney"]')
    return items


def _refused(message: str) -> Refused:
    return Refused("INVALID_PARAMETERS", message)


def _shown(value: str) -> str:
    """A value for an error message: quoted, and cut where it is long."""
    return json.dumps(value if len(value) <= 60 else value[:60] + "…", ensure_ascii=False)


def _parser_of(descriptor: FieldDescriptor) -> Callable[[str, str], Any]:
    if descriptor.is_repeated:
        return _texts
    return {
        FieldDescriptor.TYPE_STRING: _text,
        FieldDescriptor.TYPE_BOOL: _flag,
        FieldDescriptor.TYPE_INT32: _whole,
        FieldDescriptor.TYPE_DOUBLE: _number,
    }[descriptor.type]


# The parameters are the fields of the message, so a new field is a new parameter without a change here.
_PARSERS = {descriptor.name: _parser_of(descriptor) for descriptor in TranscribeConfig.DESCRIPTOR.fields}
