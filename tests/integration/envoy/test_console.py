"""The routes of the console can be left out."""

from pathlib import Path

import httpx
import pytest

from stack.envoy import Endpoints, envoy
from stack.ports import free_port

BROWSER = {"accept": "text/html"}


@pytest.mark.parametrize("console", [True, False])
def test_without_the_console_its_paths_are_like_any_other(tmp_path: Path, console: bool) -> None:
    endpoints = Endpoints(["127.0.0.1"], free_port(), free_port(), free_port(), console=console)
    with envoy(tmp_path / "envoy", endpoints):
        url = f"http://127.0.0.1:{endpoints.port}"
        answers = {path: httpx.get(url + path, headers=BROWSER) for path in ("/", "/console", "/console/", "/x")}
    assert answers["/x"].status_code == 404
    if console:
        assert [answers[path].status_code for path in ("/", "/console", "/console/")] == [302, 302, 200]
        return
    for path in ("/", "/console", "/console/"):
        assert answers[path].status_code == 404
        assert answers[path].json() == answers["/x"].json()
        assert answers[path].headers["content-security-policy"] == answers["/x"].headers["content-security-policy"]
