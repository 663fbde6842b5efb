"""A tenant of a service with keys, and a browser that logs in with them."""

import json
import os
import subprocess
import sys
from typing import Any
from uuid import uuid4

import httpx
from playwright.sync_api import Page, expect

from stack.settings import ROOT
from stack.supervisor import Stack

EVERYTHING = ("realtime", "sessions:read", "sessions:write", "admin")


class Tenant:
    """A tenant of its own, and its keys."""

    def __init__(self, stack: Stack, rest: httpx.Client) -> None:
        self._rest = rest
        self.name = f"console-{uuid4().hex[:8]}"
        command = [sys.executable, "-m", "persistence.access", "create-key", "--json", "--tenant", self.name]
        command += ["--name", "first", "--scopes", ",".join(EVERYTHING)]
        environment = os.environ | {"DALSTON_DATABASE_URL": stack.database_url}
        made = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True, timeout=60)
        self.secret = str(json.loads(made.stdout)["secret"])

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.secret}"}

    def make_key(self, name: str, *scopes: str, **more: Any) -> tuple[str, str]:
        """The id and the secret of a key."""
        body = {"name": name, "scopes": scopes or EVERYTHING, **more}
        answer = self._rest.post("/v1/keys", json=body, headers=self.headers)
        assert answer.status_code == 200, answer.text
        return answer.json()["key"]["id"], answer.json()["secret"]

    def revoke(self, key_id: str) -> None:
        assert self._rest.delete(f"/v1/keys/{key_id}", headers=self.headers).status_code == 200

    def keys(self) -> dict[str, dict[str, Any]]:
        found = self._rest.get("/v1/keys", headers=self.headers).json()["keys"]
        return {key["name"]: key for key in found}


def log_in(page: Page, secret: str) -> None:
    """Fills in the form of the login page, which is open."""
    page.get_by_label("API key").fill(secret)
    page.get_by_role("button", name="Log in").click()


def open_as(page: Page, secret: str, address: str) -> None:
    """Opens a page of the console with a login."""
    page.goto(address)
    expect(page.get_by_role("heading", name="Log in to Dalston")).to_be_visible(timeout=20_000)
    log_in(page, secret)
    expect(page.get_by_role("button", name="Log out")).to_be_visible(timeout=20_000)
