"""A file from the jobs page to its transcript, by the worker of a real stack; and pages of a service without keys."""

from collections.abc import Callable

import httpx
import pytest
from playwright.sync_api import Page, expect

from stack.settings import ROOT
from stack.supervisor import Stack
from tests.e2e.test_worker import stack as worker_stack

SAMPLE = ROOT / "samples" / "sense-and-sensibility.flac"
JOB_MS = 400_000

# The model is loaded with the first job, and the machine may be busy.
pytestmark = pytest.mark.timeout(600)
stack = worker_stack


def test_a_file_becomes_a_transcript(
    page: Page, rest: httpx.Client, stack: Stack, shoot: Callable[[Page, str], None]
) -> None:
    page.goto("jobs.html")
    expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible(timeout=20_000)
    page.locator("input[type=file]").set_input_files(SAMPLE)
    line = page.get_by_role("row").filter(has_text=SAMPLE.name)
    expect(line).to_contain_text("Running", timeout=JOB_MS)
    expect(line).to_contain_text("Completed", timeout=JOB_MS)
    shoot(page, "jobs-completed")
    (job,) = rest.get("/v1/jobs").json()["jobs"]
    assert (job["status"], job["file_name"]) == ("completed", SAMPLE.name)
    expect(line.get_by_role("link", name=SAMPLE.name)).to_have_attribute("href", f"session.html?id={job['session_id']}")
    text = rest.get(f"/v1/realtime/sessions/{job['session_id']}/export/txt").text
    assert "Dashwood" in text
    page.goto("status.html")
    expect(page.get_by_role("row").filter(has_text="Worker")).to_contain_text("of 2 jobs", timeout=20_000)


def test_without_keys_no_login_is_needed_and_no_key_managed(page: Page, shoot: Callable[[Page, str], None]) -> None:
    page.goto("login.html?next=jobs.html")
    expect(page.get_by_text("No login is needed.")).to_be_visible()
    expect(page.get_by_label("API key")).to_have_count(0)
    page.get_by_role("link", name="Open the console").click()
    expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
    page.goto("keys.html")
    expect(page.get_by_role("heading", name="This service runs without keys")).to_be_visible()
    shoot(page, "keys-off")
