"""Errors as clients, tenants and operators see them."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from domain.errors import StorageUnavailable
from persistence import outage_report as outages
from persistence.errors import DatabaseUnavailable, DiskUnavailable, ObjectNotFound, ObjectStoreUnavailable, RowLost
from server.rpc.errors import abort, describe, end_reason_of
from stack.settings import ROOT

EACH = [
    (DatabaseUnavailable("the database does not answer"), "database"),
    (RowLost(), "database"),
    (ObjectStoreUnavailable("the object store does not answer as it should"), "object_store"),
    (ObjectNotFound("the object is not in the store"), "object_store"),
    (DiskUnavailable("the spool cannot be written"), "disk"),
]


class Context:
    """Keeps the status of a call."""

    async def abort(self, code: grpc.StatusCode, message: str, trailing: Any) -> None:
        self.code, self.message = code, message


def count(component: str) -> float:
    return REGISTRY.get_sample_value("dalston_storage_unavailable_total", {"component": component}) or 0.0


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No outage has been logged before."""
    monkeypatch.setattr(outages, "_reported_at", {})


@pytest.mark.parametrize(("error", "component"), EACH)
async def test_the_unavailable_component_is_named_to_operators_only(error: StorageUnavailable, component: str) -> None:
    context: Any = Context()
    before = count(component)
    with capture_logs() as logs:
        await abort("GetSession", context, error)
    assert count(component) == before + 1
    assert logs == [
        {
            "event": "a component of the storage is unavailable",
            "log_level": "warning",
            "component": component,
            "doing": "GetSession",
            "reason": str(error),
        }
    ]
    public = "the storage of the service is unavailable: try again later"
    assert (context.code, context.message) == (grpc.StatusCode.UNAVAILABLE, public)
    assert describe(error) == ("unavailable", public)
    assert end_reason_of(error).error == f"unavailable: {public}"


async def test_an_outage_that_refuses_every_call_is_logged_every_ten_seconds_for_each_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(outages, "time", SimpleNamespace(monotonic=lambda: now))
    with capture_logs() as logs:
        for _ in range(21):
            for error in (DatabaseUnavailable("away"), DiskUnavailable("full")):
                outages.note_outage(error, "a call")
            now += 1.0
    assert [each["component"] for each in logs] == ["database", "disk"] * 3


def test_every_error_of_storage_names_its_part() -> None:
    raised = re.compile(r"\bStorageUnavailable\(\S")
    sources = [path for folder in ("persistence", "server") for path in (ROOT / folder).rglob("*.py")]
    unnamed = [
        f"{path.name}: {line}"
        for path in sources
        for line in path.read_text().splitlines()
        if raised.search(line) and not line.lstrip().startswith(("class ", "case "))
    ]
    assert unnamed == []
