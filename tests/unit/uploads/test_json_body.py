"""JSON bodies with a file in base64, as Open WebUI sends them."""

import base64
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploads.body import BodyEvent, Field, FileBegin, FileData
from uploads.errors import ApiError
from uploads.json_body import JsonBody

FILE = bytes(range(256)) * 1000
BODY = {
    "model": "whisper-1",
    "language": None,
    "data": "no file",
    "input_audio": {"data": base64.b64encode(FILE).decode(), "format": 'w"av'},
    "nested": {"input_audio": {"data": "no file either"}, "list": [{"data": "["}, "]"]},
    "keywords": ["one", "two"],
    "temperature": 0.5,
    "stream": True,
    "text": 'ä \\ "quoted" \u2028',
}
FIELDS = [
    Field("model", "whisper-1"),
    Field("data", "no file"),
    Field("nested", '{"input_audio": {"data": "no file either"}, "list": [{"data": "["}, "]"]}'),
    Field("keywords", "one"),
    Field("keywords", "two"),
    Field("temperature", "0.5"),
    Field("stream", "true"),
    Field("text", 'ä \\ "quoted" \u2028'),
]


def parse(body: bytes, size: int) -> list[BodyEvent]:
    parser = JsonBody()
    events = [event for at in range(0, len(body), size) for event in parser.feed(body[at : at + size])]
    return events + parser.finish()


def file_of(events: list[BodyEvent]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, FileData))


@pytest.mark.parametrize("size", [1, 3, 1000, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_fields_and_file_come_out_whatever_the_pieces_are(size: int, indent: int | None) -> None:
    events = parse(json.dumps(BODY, indent=indent).encode(), size)
    assert file_of(events) == FILE
    assert [event for event in events if isinstance(event, Field)] == FIELDS
    assert events.count(FileBegin("")) == 1


def test_the_file_is_passed_on_before_its_end() -> None:
    parser = JsonBody()
    text = json.dumps(BODY).encode()
    events = parser.feed(text[: len(text) // 2])
    assert len(file_of(events)) > len(FILE) // 4


def test_escaped_slashes_and_line_breaks_are_base64() -> None:
    encoded = base64.encodebytes(b"\xff" * 100).decode()
    text = json.dumps({"input_audio": {"data": encoded}}).replace("/", "\\/")
    assert file_of(parse(text.encode(), 5)) == b"\xff" * 100


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[1]", "must be a JSON object"),
        (b'{"model": "m"}', "input_audio.data"),
        (b'{"input_audio": {"data": 5}}', "input_audio.data"),
        (b'{"input_audio": [{"data": "QQ=="}]}', "input_audio.data"),
        (b'{"input_audio": {"data": "QQ=="}', "not JSON"),
        (b'{"input_audio": {"data": "QQ==', "not JSON"),
        (b'{"input_audio": {"data": "Q Q="}}', "not base64"),
        (b'{"input_audio": {"data": "QQQ"}}', "not base64"),
        (b'{"input_audio": {"data": "\\u0041"}}', "not base64"),
        (b'{"input_audio": {"data": "' + 30_000 * b"QQ==" + b'"}}', "not base64"),
        (b'{"input_audio": {"data": "QQ==", "data": "QQ=="}}', "more than one file"),
        (b'{"a": ' + 50 * b"[", "nested too deeply"),
        (b"]", "not JSON"),
        (b'{"a": "' + 300_000 * b"x", "too many or too large"),
        (b"[" + 200_000 * b"1,", "too many or too large"),
        (b'{"a": [' + b"1," * 500 + b'1], "input_audio": {"data": "QQ=="}}', "too many or too large"),
    ],
)
@pytest.mark.parametrize("size", [7, 1 << 20])
def test_a_malformed_body_is_a_400_that_names_the_fault(body: bytes, message: str, size: int) -> None:
    with pytest.raises(ApiError, match=message) as refused:
        parse(body, size)
    assert refused.value.status == 400


@given(
    at=st.integers(0, 700),
    change=st.sampled_from([b"", b'"', b"\\", b"{", b"}", b"[", b",", b":", b"\xff", b"0"]),
    size=st.sampled_from([1, 50, 4096]),
)
def test_a_mutated_body_is_parsed_or_refused(at: int, change: bytes, size: int) -> None:
    body = json.dumps({**BODY, "input_audio": {"data": base64.b64encode(FILE[:90]).decode()}}).encode()
    with suppress(ApiError):
        assert len(file_of(parse(body[:at] + change + body[at + 1 :], size))) <= 90
