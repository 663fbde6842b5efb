"""The document of a version is written once, whatever attempts a job needs."""

import json
from uuid import uuid4

import pytest

from domain.session_id import format_session_id
from domain.transcript import DocumentVersion, Utterance, utterances_of
from persistence.s3.keys import parse_version_key, version_key
from persistence.s3.objects import ObjectStore
from persistence.storing.version_writer import put_version

HELLO = Utterance(0.5, 1.0, "hello there", 0.5, "en", 0.9)
SECOND = DocumentVersion(2, "accurate", "enhanced")


async def test_an_object_that_exists_is_not_written_again(objects: ObjectStore) -> None:
    key = version_key(uuid4(), 2)
    assert await objects.put_new(key, b"one", "application/json")
    assert not await objects.put_new(key, b"two", "application/json")
    assert await objects.read(key) == b"one"


async def test_the_document_of_a_version_names_it(objects: ObjectStore) -> None:
    session_id = uuid4()
    uri = await put_version(objects, session_id, SECOND, "en", 2.0, [HELLO])
    key = version_key(session_id, 2)
    assert uri == objects.uri(key)
    body = await objects.read(key)
    shape = json.loads(body)
    assert shape | {"utterances": None} == {
        "session_id": format_session_id(session_id),
        "language": "en",
        "duration": 2.0,
        "version": 2,
        "model": "accurate",
        "kind": "enhanced",
        "text": "hello there",
        "utterances": None,
    }
    assert utterances_of(body) == [HELLO]


async def test_a_repeated_write_of_a_version_changes_nothing(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = uuid4()
    await put_version(objects, session_id, SECOND, "en", 2.0, [HELLO])
    before = await objects.size_and_version(version_key(session_id, 2))
    deleted: list[str] = []

    async def delete(_self: ObjectStore, key: str) -> None:
        deleted.append(key)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "delete", delete)
        await put_version(objects, session_id, SECOND, "en", 2.0, [HELLO])
    assert deleted == []
    assert await objects.size_and_version(version_key(session_id, 2)) == before


async def test_a_different_object_of_an_earlier_attempt_is_replaced(objects: ObjectStore) -> None:
    session_id = uuid4()
    await objects.put(version_key(session_id, 2), b"{}", "application/json")
    await put_version(objects, session_id, SECOND, "en", 2.0, [HELLO])
    assert utterances_of(await objects.read(version_key(session_id, 2))) == [HELLO]


def test_the_version_is_read_from_its_key_only() -> None:
    session_id = uuid4()
    assert parse_version_key(version_key(session_id, 12)) == 12
    for name in (
        "transcript.json",
        "transcripts/0.json",
        "transcripts/1.json.bak",
        "tail/1.json",
        "transcripts/x.json",
    ):
        assert parse_version_key(f"sessions/{format_session_id(session_id)}/{name}") is None
