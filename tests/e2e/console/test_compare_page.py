"""The page that compares two versions of a transcript, and the comparison that it makes."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from domain.transcript import Utterance
from stack.supervisor import Stack
from tests.e2e.conftest import Sample
from tests.e2e.console.conftest import Complaints, overflow, violations
from tests.e2e.console.recorded import (
    RATE,
    add_version,
    current_time,
    note_seeks,
    record,
    utterance,
    wait_for_seek,
    wait_until,
)

pytestmark = pytest.mark.timeout(300)

LIVE = [
    utterance(0.2, "And Mr John Dashwood had then leisure."),
    utterance(4.0, "He was not an ill disposed young man."),
    utterance(8.0, "A word that was not spoken."),
]
BETTER = [
    utterance(0.2, "And Mr. John Dashwood had the leisure."),
    utterance(4.0, "He was not an ill-disposed young man."),
]
DIFF = """async ([a, b, by]) => {
    const { tokens, windows, compare, counts } = await import("/console/lib/diff.js");
    const begun = performance.now();
    const [first, second] = [tokens(a), tokens(b)];
    const found = windows(first, second);
    const stretches = found.flatMap((window) => compare(first, second, window, by));
    const took = performance.now() - begun;
    const text = (tokens, [from, end]) => tokens.slice(from, end).map((each) => each.text).join(" ");
    return {
        windows: found.length, took, ...counts(stretches), words: [first.length, second.length],
        joined: [stretches.map((each) => text(first, each.a)).filter(Boolean).join(" "),
                 stretches.map((each) => text(second, each.b)).filter(Boolean).join(" ")],
        changes: stretches.filter((each) => !each.same).map((each) => [text(first, each.a), text(second, each.b)]),
    };
}"""


@pytest.fixture(scope="module")
def compared(stack: Stack, sample: Sample) -> str:
    """A session with its live version, a version 2, and a doubtful version 3."""
    with httpx.Client(base_url=stack.base_url, timeout=30, trust_env=False) as http:
        session_id = record(stack, http, sample.pcm[: 12 * RATE])
    add_version(stack, session_id, 2, LIVE, seconds=12.0, is_current=False)
    add_version(stack, session_id, 3, BETTER, seconds=12.0, verdict="doubtful")
    return session_id


@pytest.fixture
def console(page: Page, complaints: Complaints) -> Page:
    """A page of the console, whose modules can be imported."""
    complaints.expect("/favicon.ico")
    page.goto("icon.svg")
    return page


def shape(utterances: list[Utterance]) -> list[dict[str, Any]]:
    return [each.to_json() for each in utterances]


def test_two_versions_are_one_text_with_what_was_removed_and_added(
    page: Page, compared: str, shoot: Callable[[Page, str], None]
) -> None:
    page.goto(f"compare.html?id={compared}&a=2&b=3")
    changes = page.locator(".change")
    expect(changes).to_have_count(3)
    assert page.locator("del").all_text_contents() == ["then", "ill disposed", "A word that was not spoken."]
    assert page.locator("ins").all_text_contents() == ["the", "ill-disposed"]
    texts = [
        "And Mr. John Dashwood had then the leisure.",
        "He was not an ill disposed ill-disposed young man.",
        "A word that was not spoken.",
    ]
    expect(page.locator(".said")).to_have_text(texts)
    figures = page.locator(".figures dd").all_inner_texts()
    assert figures[:4] == ["21 → 14", "3", "\N{MINUS SIGN}9", "+2"]
    expect(page.locator(".note")).to_contain_text("fewer words than the live transcript")
    shoot(page, "compare")
    page.get_by_role("switch", name="Only differences").check()
    assert overflow(page) == 0


def test_differences_are_reached_by_keys_and_each_plays(page: Page, compared: str) -> None:
    page.goto(f"compare.html?id={compared}&a=2&b=3")
    changes = page.locator(".change")
    expect(changes).to_have_count(3)
    wait_until(lambda: page.evaluate("document.querySelector('audio')?.readyState ?? 0") > 0)
    note_seeks(page)
    page.keyboard.press("n")
    expect(changes.nth(0)).to_be_focused()
    then = LIVE[0].words[5].start
    wait_for_seek(page, then - 1, then)
    # It stops behind the difference.
    expect(page.get_by_role("button", name="Play", exact=True)).to_be_visible(timeout=15_000)
    assert then < current_time(page) < then + 3
    page.keyboard.press("n")
    expect(page.get_by_text("2 of 3")).to_be_visible()
    page.keyboard.press("p")
    page.keyboard.press("p")
    expect(changes.nth(2)).to_be_focused()
    page.get_by_role("button", name="Next").click()
    expect(changes.nth(0)).to_have_attribute("aria-current", "true")
    changes.nth(1).click()
    wait_for_seek(page, LIVE[1].words[4].start - 1, LIVE[1].words[4].start)


def test_other_versions_are_chosen_and_the_address_keeps_them(page: Page, rest: httpx.Client, compared: str) -> None:
    page.goto(f"compare.html?id={compared}")
    expect(page.get_by_role("combobox", name="From")).to_have_value("1")
    page.get_by_role("combobox", name="From").select_option("2")
    page.get_by_role("combobox", name="To").select_option("2")
    expect(page.get_by_role("combobox", name="From")).not_to_have_value("2")
    page.get_by_role("combobox", name="From").select_option("3")
    page.get_by_role("button", name="Swap").click()
    expect(page).to_have_url(re.compile("a=2&b=3"))
    expect(page.locator(".change")).to_have_count(3)
    page.get_by_role("switch", name="Case and punctuation").check()
    expect(page.locator("ins").first).to_have_text("Mr.")
    page.reload()
    expect(page.locator(".change")).to_have_count(4)
    page.get_by_role("link", name=re.compile("Nov|Dec|[A-Z][a-z]{2},")).click()
    expect(page.locator(".id")).to_contain_text(compared)


def test_one_version_has_nothing_to_compare(page: Page, stack: Stack, rest: httpx.Client, sample: Sample) -> None:
    session_id = record(stack, rest, sample.pcm[: 2 * RATE])
    page.goto(f"compare.html?id={session_id}")
    expect(page.locator("main")).to_contain_text("This transcript has one version.")


def test_the_comparison_covers_every_word_of_both(console: Page) -> None:
    lengths = [9, 3, 5, 7, 4]
    first = [
        utterance(at * 3.7, " ".join(f"w{at * 31 % 57 + each}" for each in range(lengths[at % 5]))) for at in range(120)
    ]
    second = [replace(each, text=each.text.upper()) for each in first[3:]]
    second = [utterance(each.start + 0.05, each.text + " more") for each in second]
    for by in ("plain", "text"):
        found = console.evaluate(DIFF, [shape(first), shape(second), by])
        assert found["joined"] == [" ".join(each.text for each in side) for side in (first, second)]
        assert found["windows"] > 5
    found = console.evaluate(DIFF, [shape(first), shape(second), "plain"])
    assert (found["removed"], found["added"]) == (sum(lengths[:3]), len(second))


@pytest.mark.parametrize(
    ("first", "second", "changes"),
    [
        ("", "", []),
        ("one two", "", [["one two", ""]]),
        ("", "one two", [["", "one two"]]),
        ("one two three", "one Two, three", []),
        ("one two three four", "one three five four", [["two", ""], ["", "five"]]),
        ("...", "!!!", [["...", "!!!"]]),
    ],
)
def test_what_is_a_difference(console: Page, first: str, second: str, changes: list[list[str]]) -> None:
    sides = [shape([utterance(0, text)]) if text else [] for text in (first, second)]
    assert console.evaluate(DIFF, [*sides, "plain"])["changes"] == changes


def test_words_of_languages_without_spaces_are_compared_and_joined_as_they_were(console: Page) -> None:
    words = [
        {"word": each, "start": at, "end": at + 0.5, "confidence": 1} for at, each in enumerate(["今日", "は", "晴れ"])
    ]
    first = {"start": 0, "end": 3, "text": "今日は晴れ。", "words": words}
    second = {**first, "text": "今日は雨。", "words": [*words[:2], {**words[2], "word": "雨"}]}
    found = console.evaluate(DIFF, [[first], [second], "plain"])
    assert found["changes"] == [["晴れ。", "雨。"]]


def test_speech_without_any_pause_is_compared_in_windows(console: Page) -> None:
    text = " ".join(f"w{at * 7919 % 5003}" for at in range(40_000))
    endless = shape([utterance(0, text, seconds_each=0.36)])
    other = json.loads(json.dumps(endless))
    for at in range(100, 40_000, 997):
        other[0]["words"][at]["word"] = other[0]["words"][at]["text"] = "changed"
    other[0]["text"] = " ".join(word["word"] for word in other[0]["words"])
    found = console.evaluate(DIFF, [endless, other, "plain"])
    assert found["windows"] > 300
    assert (found["words"], found["changes"], found["removed"]) == ([40_000, 40_000], found["changes"], 41)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 320])
def test_axe_finds_nothing(page: Page, compared: str, scheme: str, width: int) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"compare.html?id={compared}&a=2&b=3")
    expect(page.locator(".change")).to_have_count(3)
    assert violations(page) == []
    page.keyboard.press("n")
    expect(page.locator(".change").first).to_be_focused()
    assert violations(page) == []
    assert overflow(page) == 0
