"""How the command shows the status of a service."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from dalston import Degradation, Latency, Process, ServerFigures, ServiceStatus, StorageBacklog, Totals, WorkerFigures
from dalston.cli import deployment_view

NOW = datetime(2026, 5, 4, 3, 0, tzinfo=UTC)
SERVER = Process(
    id="a",
    kind="server",
    state="ready",
    version="0.1.0",
    started_at=NOW - timedelta(days=1),
    reported_at=NOW - timedelta(seconds=2),
    lease_valid=True,
    lease_expires_at=NOW + timedelta(seconds=13),
    degradations=(Degradation("object_store", NOW - timedelta(minutes=12)),),
    server=ServerFigures(
        sessions=7,
        max_sessions=64,
        queue_delay_seconds=0.25,
        max_queue_delay_seconds=3.0,
        longest_wait_seconds=0.0,
        finals=Latency(40, 0.4, 0.9),
        partials=Latency(0),
        suppressed_partials=None,
        storage=StorageBacklog(3, 1, 5e9, 5e10),
    ),
)
WORKER = replace(SERVER, id="b", kind="worker", degradations=(), server=None, worker=WorkerFigures(1, 2))
TOTALS = Totals(7, 3, NOW - timedelta(seconds=90), 0, 0, 12, NOW - timedelta(hours=1), 1)
STATUS = ServiceStatus(NOW, "deployment", (SERVER, WORKER), TOTALS, "a")


def test_a_row_has_the_figures_of_its_process() -> None:
    assert deployment_view.rows(STATUS) == [
        ("a", "server", "ready", "7/64", "0.25 s", "p95 0.90 s", "-", "3", "5.0 GB", "2.0 s", "0.1.0"),
        ("b", "worker", "ready", "1/2", "-", "-", "-", "-", "-", "2.0 s", "0.1.0"),
    ]


def test_every_row_has_all_columns() -> None:
    silent = replace(SERVER, server=None, state="", version="", reported_at=None)
    for process in (SERVER, WORKER, silent):
        (row,) = deployment_view.rows(replace(STATUS, processes=(process,)))
        assert len(row) == len(deployment_view.COLUMNS)


def test_a_process_without_a_lease_is_shown_as_such_whatever_it_last_reported() -> None:
    (row,) = deployment_view.rows(replace(STATUS, processes=(replace(SERVER, lease_valid=False),)))
    assert row[2] == "no lease"


def test_what_waits_and_what_is_wrong_is_named_with_its_age() -> None:
    assert deployment_view.fields(STATUS) == [
        ("active sessions", "7"),
        ("not stored yet", "3 (oldest 1:30)"),
        ("jobs", "12 (oldest 1:00:00) queued, 1 running"),
        ("degraded", "a: object_store, 12:00"),
    ]


def test_without_postgres_the_totals_are_unknown() -> None:
    assert deployment_view.fields(replace(STATUS, totals=None))[0] == (
        "totals",
        "unknown: the database does not answer",
    )


def test_sessions_to_recover_are_shown_when_there_are_any() -> None:
    totals = replace(TOTALS, sessions_to_recover=2, expired_leases=1)
    assert ("to recover", "2 sessions, 1 expired leases") in deployment_view.fields(replace(STATUS, totals=totals))
