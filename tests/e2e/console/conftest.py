"""Chromium on the console of a real stack. No page of a test may have a message, an error or a policy violation."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from stack.supervisor import Stack

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SHOTS = os.environ.get("CONSOLE_SHOTS")
"""A folder for pictures of the pages, or nothing for none."""
SCHEMES = ("light", "dark")
WIDE, NARROW = 1280, 320
_VIOLATIONS = """addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`))"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if CHROMIUM is None:
        for item in items:
            if Path(__file__).parent in item.path.parents and "page" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.skip("Chromium is not installed here"))


def _text(message: ConsoleMessage) -> str:
    # Of a request that failed, the text has no address.
    return f"{message.type}: {message.text} {message.location.get('url', '')}"


@dataclass
class Complaints:
    """What pages of a test have complained about."""

    found: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def expect(self, part: str) -> None:
        """Allows messages with this text: a browser reports failed requests that a test provokes."""
        self.expected.append(part)

    def listen(self, page: Page) -> None:
        page.on("console", lambda message: self.found.append(_text(message)))
        page.on("pageerror", lambda error: self.found.append(f"error: {error}"))
        page.on("crash", lambda _: self.found.append("the page crashed"))

    @property
    def unexpected(self) -> list[str]:
        return [each for each in self.found if not any(part in each for part in self.expected)]


# Not of the whole session: while it is open, its event loop runs, and tests with one of their own would fail.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # A microphone that plays a tone, and no question whether the page may use it.
    arguments = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    complaints = Complaints()
    # A service without logins.
    complaints.expect("/v1/login")
    yield complaints
    assert complaints.unexpected == []


@pytest.fixture
def context(browser: Browser, stack: Stack, complaints: Complaints) -> Iterator[BrowserContext]:
    """A browser without storage; relative addresses are those of the console."""
    base = f"http://localhost:{stack.port}/console/"
    context = browser.new_context(base_url=base, viewport={"width": WIDE, "height": 800}, locale="en-GB")
    context.add_init_script(_VIOLATIONS)
    context.on("page", complaints.listen)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.fixture
def rest(stack: Stack) -> Iterator[httpx.Client]:
    """The REST interface of the stack that the pages use."""
    with httpx.Client(base_url=stack.base_url, timeout=20, trust_env=False) as client:
        yield client


@pytest.fixture
def shoot() -> Callable[[Page, str], None]:
    """Writes pictures of a page, light and dark, wide and narrow, if `CONSOLE_SHOTS` names a folder."""

    def shoot(page: Page, name: str) -> None:
        if not SHOTS:
            return
        size = page.viewport_size
        for scheme in SCHEMES:
            # Without motion, or a picture has colours between those of two schemes.
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
            for width in (WIDE, NARROW):
                page.set_viewport_size({"width": width, "height": 800})
                page.screenshot(path=Path(SHOTS) / f"{name}-{scheme}-{width}.png", full_page=width == NARROW)
        page.emulate_media(color_scheme="light", reduced_motion="no-preference")
        if size:
            page.set_viewport_size(size)

    return shoot


def overflow(page: Page) -> int:
    """How many pixels a page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def violations(page: Page) -> list[str]:
    """What axe finds against WCAG 2.2 AA, as rules with the elements that break them."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = axe.run(page, options={"runOnly": {"type": "tag", "values": tags}}).response["violations"]
    return [f"{rule['id']}: {node['target']} {node['failureSummary']}" for rule in found for node in rule["nodes"]]


def unseen_text(page: Page) -> Any:
    """The text of the region that screen readers announce."""
    return page.locator("[role=status].unseen").inner_text()
