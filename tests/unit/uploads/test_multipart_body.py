"""Bodies as clients send them, in pieces of any size."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploads.body import BodyEvent, Field, FileBegin, FileData
from uploads.errors import ApiError
from uploads.multipart_body import MultipartBody, boundary_of

FILE = bytes(range(256)) * 40 + b"\r\n--not the boundary\r\n--" + bytes(64)
# As httpx sends it for openai-python: fields first, lists as `name[]`.
OPENAI = (
    b'--b7\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
    b'--b7\r\nContent-Disposition: form-data; name="timestamp_granularities[]"\r\n\r\nword\r\n'
    b'--b7\r\nContent-Disposition: form-data; name="timestamp_granularities[]"\r\n\r\nsegment\r\n'
    b'--b7\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/x-wav\r\n\r\n'
    + FILE
    + b"\r\n--b7--\r\n"
)
# As curl sends it with the file first; the header names are in another case.
CURL = (
    b'--b7\r\ncontent-disposition: form-data; name="file"; filename="B\xc3\xa4r.ogg"\r\n'
    b"content-type: application/octet-stream\r\n\r\n" + FILE + b"\r\n"
    b'--b7\r\ncontent-disposition: form-data; name="model"\r\n\r\nfast\r\n--b7--\r\nan epilogue'
)


def parse(body: bytes, size: int, boundary: bytes = b"b7") -> list[BodyEvent]:
    parser = MultipartBody(boundary)
    events = [event for at in range(0, len(body), size) for event in parser.feed(body[at : at + size])]
    return events + parser.finish()


def parts(events: list[BodyEvent]) -> tuple[list[Field], list[str], bytes]:
    fields = [event for event in events if isinstance(event, Field)]
    names = [event.name for event in events if isinstance(event, FileBegin)]
    return fields, names, b"".join(event.data for event in events if isinstance(event, FileData))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000, 1 << 20])
def test_fields_and_file_come_out_whatever_the_pieces_are(size: int) -> None:
    assert parts(parse(OPENAI, size)) == (
        [
            Field("model", "whisper-1"),
            Field("timestamp_granularities[]", "word"),
            Field("timestamp_granularities[]", "segment"),
        ],
        ["a.wav"],
        FILE,
    )
    assert parts(parse(CURL, size)) == ([Field("model", "fast")], ["Bär.ogg"], FILE)


def test_a_file_without_a_name_is_a_file() -> None:
    body = b'--b7\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc\r\n--b7--\r\n'
    assert parts(parse(body, 5)) == ([], [""], b"abc")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (OPENAI[:-8], "ends before its last boundary"),
        (OPENAI[:20], "ends before its last boundary"),
        (b"", "ends before its last boundary"),
        (b"--other\r\n", "not multipart/form-data"),
        (b"--b7\r\n\r\nx\r\n--b7--\r\n", "a part has no name"),
        (b"--b7\r\nContent-Disposition: attachment; name=x\r\n\r\nx\r\n--b7--\r\n", "a part has no name"),
        (
            b'--b7\r\nContent-Disposition: form-data; name="x"\r\nContent-Transfer-Encoding: base64\r\n\r\nx\r\n--b7--',
            "transfer encoding",
        ),
        (b'--b7\r\nContent-Disposition: form-data; name="x"\r\n\r\n\xff\r\n--b7--\r\n', "not UTF-8"),
        (2 * OPENAI[:-6] + b"--b7--", "more than one file"),
        (b'--b7\r\nContent-Disposition: form-data; name="x"\r\n' + b"A: b\r\n" * 20 + b"\r\n", "header count"),
        (b'--b7\r\nContent-Disposition: form-data; name="x' + bytes(10_000), "not multipart/form-data"),
        (b'--b7\r\nContent-Disposition: form-data; name="x"\r\n\r\n' + b"x" * 300_000, "too many or too large"),
        (b'--b7\r\nContent-Disposition: form-data; name="x"\r\n\r\n\r\n' * 400, "too many or too large"),
    ],
)
@pytest.mark.parametrize("size", [11, 1 << 20])
def test_a_malformed_body_is_a_400_that_names_the_fault(body: bytes, message: str, size: int) -> None:
    with pytest.raises(ApiError, match=message) as refused:
        parse(body, size)
    assert refused.value.status == 400


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=", f"a; boundary={'b' * 300}"])
def test_a_content_type_without_a_usable_boundary_is_a_400(kind: str) -> None:
    with pytest.raises(ApiError, match="boundary"):
        boundary_of(kind)


def test_the_boundary_may_be_in_quotes() -> None:
    assert boundary_of('multipart/form-data; charset=utf-8; boundary="b 7;"') == b"b 7;"


@given(data=st.data())
def test_a_mutated_body_is_parsed_or_refused(data: st.DataObject) -> None:
    body = bytearray(data.draw(st.sampled_from([OPENAI, CURL])))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(body) - 1))
        match data.draw(st.sampled_from(["replace", "remove", "insert", "cut"])):
            case "replace":
                body[at] = data.draw(st.integers(0, 255))
            case "remove":
                del body[at : at + data.draw(st.integers(1, 30))]
            case "insert":
                body[at:at] = data.draw(
                    st.sampled_from([b"\r\n", b"--b7", b"--b7--\r\n", b"\x00", b'"', b";", b"\xff"])
                )
            case "cut":
                del body[max(at, 1) :]
        if not body:
            break
    events: list[BodyEvent] = []
    with suppress(ApiError):
        events = parse(bytes(body), data.draw(st.sampled_from([1, 13, 4096])))
    assert sum(len(event.data) for event in events if isinstance(event, FileData)) <= len(body)
