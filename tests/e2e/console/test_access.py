"""Pages as people meet them who do not see them, or see them enlarged: axe finds nothing, nothing scrolls sideways."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.console.conftest import overflow, violations
from tests.e2e.console.test_sessions import Sessions, open_list, row, sessions

__all__ = ["sessions"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 640, 320])
def test_axe_finds_nothing_in_the_list(page: Page, sessions: Sessions, scheme: str, width: int) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 800})
    open_list(page)
    expect(page.get_by_role("heading", name="No sessions yet")).to_be_visible()
    assert violations(page) == []
    done = sessions.make()
    active, _ = sessions.begin()
    expect(row(page, active)).to_be_visible()
    row(page, done).get_by_role("checkbox").check()
    assert violations(page) == []
    assert overflow(page) == 0
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    assert violations(page) == []


def test_every_page_has_its_language_title_and_one_heading() -> None:
    for path in (Path(__file__).parents[3] / "console").glob("*.html"):
        text = path.read_text()
        assert '<html lang="en">' in text
        assert re.search(r"<title>[^<]+ · Dalston</title>", text), path.name
