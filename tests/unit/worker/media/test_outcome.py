import errno
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.media.errors import (
    DecodingFailed,
    MediaError,
    MediaTooLong,
    NoDiskSpace,
    Reason,
    UndecodableMedia,
)
from worker.media.outcome import Decoded, outcome_of
from worker.media.process import Exit

FACTS = {
    "format": "mp4",
    "codec": "aac",
    "sample_rate": 44_100,
    "channels": 2,
    "is_truncated": False,
    "damaged_packets": 0,
}
REPORT: dict[str, Any] = {"isolation": [], "facts": FACTS, "refused": None, "is_too_long": False, "errno": None}
PATH = Path("out.pcm")


def outcome(report: dict[str, Any] | None, size: int = 64_000, code: int = 0) -> Decoded | MediaError:
    try:
        return outcome_of(Exit(code, report, ""), PATH, size, max_seconds=10.0)
    except MediaError as error:
        return error


def test_a_report_becomes_a_decoded_file() -> None:
    assert outcome(REPORT) == Decoded(PATH, 2.0, 64_000, "mp4", "audio/mp4", "aac", 44_100, 2, False, 0)


@pytest.mark.parametrize(
    ("code", "kind", "is_retryable"),
    [
        (-signal.SIGXCPU, UndecodableMedia, False),
        (-signal.SIGSEGV, UndecodableMedia, False),
        (-signal.SIGSYS, UndecodableMedia, False),
        (-signal.SIGKILL, DecodingFailed, True),
        (1, DecodingFailed, True),
        (0, DecodingFailed, True),
    ],
)
def test_an_end_without_a_report_is_an_error(code: int, kind: type[MediaError], is_retryable: bool) -> None:
    error = outcome(None, code=code)
    assert type(error) is kind
    assert error.is_retryable is is_retryable


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, NoDiskSpace), (errno.EDQUOT, NoDiskSpace), (errno.EFBIG, NoDiskSpace), (errno.EIO, DecodingFailed)],
)
def test_output_that_cannot_be_written_is_retried(number: int, kind: type[MediaError]) -> None:
    error = outcome(REPORT | {"facts": None, "errno": number})
    assert type(error) is kind
    assert error.is_retryable


@pytest.mark.parametrize(
    "report",
    [
        {},
        {"facts": None},
        {"facts": []},
        {"facts": {}},
        *(
            REPORT | {"facts": FACTS | {key: value}}
            for key in ("format", "codec", "sample_rate", "channels", "damaged_packets")
            for value in (None, -1, 1e400, {}, "\n", 1 << 60)
        ),
        REPORT | {"refused": ["damaged"]},
        REPORT | {"refused": ["nonsense", "text"]},
        REPORT | {"refused": ["damaged", "two\nlines"]},
        REPORT | {"refused": 5},
        REPORT | {"errno": 1 << 70},
        REPORT | {"errno": "5"},
    ],
)
def test_a_report_that_is_nonsense_is_a_crash(report: dict[str, Any]) -> None:
    error = outcome(report)
    assert isinstance(error, UndecodableMedia)
    assert error.reason is Reason.CRASHED


def test_a_report_does_not_excuse_the_size_of_the_output() -> None:
    assert isinstance(outcome(REPORT, size=320_002), MediaTooLong)
    for size in (0, 1, 63_999):
        assert isinstance(outcome(REPORT, size=size), UndecodableMedia)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from([*REPORT, "other"]), JSON | st.just(FACTS)))
def test_any_report_has_an_outcome(report: dict[str, Any]) -> None:
    assert isinstance(outcome(report), Decoded | MediaError)
