import check_words
import pytest


def words_of(path: str, text: str) -> list[str]:
    found = check_words.in_python(path, text) if path.endswith(".py") else check_words.in_prose(path, text)
    return [finding.word for finding in found]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The client is told the reason.", ["told"]),
        ("Whoever calls, hears it.", ["Whoever", "hears"]),
        ("It runs for\never.", ["for\never"]),
        ("It runs for ever.", ["for ever"]),
        ("The code `tell()` stays.", []),
        ("```\ntell me\n```\nIt gives up.", ["gives"]),
        ("A household, a storyteller and https://example.com/door are other words.", []),
        ("The caller sends it.", []),
    ],
)
def test_prose_is_searched_for_whole_words_outside_of_code(text: str, words: list[str]) -> None:
    assert sorted(words_of("a.md", text)) == words


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("_was_told = True", ["_was_told"]),
        ("class DoorKeeper: pass", ["DoorKeeper"]),
        ("indoor = storyteller = True", []),
        ("as_nobody = 1", []),
        ("x = 1  # what it says", ["says"]),
        ('"""One line.\n\nIt lets go of it."""', ["lets go"]),
    ],
)
def test_identifiers_comments_and_strings_of_python_are_searched(source: str, words: list[str]) -> None:
    assert words_of("a.py", source + "\n") == words


def test_a_finding_names_file_line_and_alternative() -> None:
    (finding,) = check_words.in_prose("docs/a.md", "One.\n\nTwo doors.", first_line=10)
    assert str(finding).startswith("docs/a.md:12: 'doors' is retired: ")


def test_generated_files_are_skipped() -> None:
    assert not list(check_words.findings(["sdk/dalston/v1/session_pb2.py", "lock/dev.txt", "scripts/check_words.py"]))
