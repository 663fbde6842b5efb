import io
import json
import logging
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog

from telemetry.logs import configure_logging, get_logger


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def logged(monkeypatch: pytest.MonkeyPatch, log_format: Literal["json", "text"]) -> str:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    configure_logging("INFO", log_format)
    key = "sk-very-secret"
    try:
        raise ValueError(f"a failure with {len(key)} letters")
    except ValueError:
        get_logger("test").exception("something failed", session="sess_1")
    return stream.getvalue()


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_traceback_shows_no_local_variables(
    monkeypatch: pytest.MonkeyPatch, log_format: Literal["json", "text"]
) -> None:
    text = logged(monkeypatch, log_format)
    assert "ValueError" in text
    assert "sk-very-secret" not in text


def test_a_json_line_has_message_fields_and_logger(monkeypatch: pytest.MonkeyPatch) -> None:
    line = json.loads(logged(monkeypatch, "json"))
    assert (line["event"], line["session"], line["logger"], line["level"]) == (
        "something failed",
        "sess_1",
        "test",
        "error",
    )
