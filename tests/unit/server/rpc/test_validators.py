import pytest

from server.rpc.validators import entity_tag, is_unchanged, may_take_part

TAG = entity_tag(b"a file")


def test_a_tag_is_strong_quoted_and_of_the_content_alone() -> None:
    assert TAG.startswith('"')
    assert TAG.endswith('"')
    assert entity_tag(b"a file") == TAG != entity_tag(b"another")


@pytest.mark.parametrize("header", [TAG, f"W/{TAG}", f'"other", {TAG}', f' W/"x" ,W/{TAG} ', "*"])
def test_a_client_that_has_the_file_receives_not_modified(header: str) -> None:
    assert is_unchanged(header, TAG)


@pytest.mark.parametrize("header", ["", '"other"', TAG.strip('"'), "**", f"{TAG}x", ("," + TAG) * 9000])
def test_a_client_that_has_another_file_receives_this_one(header: str) -> None:
    assert not is_unchanged(header, TAG)


def test_a_range_applies_to_the_same_file_only() -> None:
    assert may_take_part("", TAG)
    assert may_take_part(TAG, TAG)
    for other in ('"other"', f"W/{TAG}", "Mon, 30 Nov 2026 12:00:00 GMT", "*"):
        assert not may_take_part(other, TAG)
