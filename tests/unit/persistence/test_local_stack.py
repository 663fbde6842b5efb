from pathlib import Path

import pytest

from persistence.local_stack import operator_settings
from telemetry.settings import InvalidSettings

RUNNING = "postgresql://dalston:secret@127.0.0.1:1234/dalston"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("DALSTON_DATABASE_URL", raising=False)
    monkeypatch.setenv("DALSTON_HOME", str(tmp_path))
    (tmp_path / "postgres").mkdir()
    return tmp_path


def test_without_a_database_url_the_local_stack_is_used(home: Path) -> None:
    (home / "postgres" / "url").write_text(RUNNING)
    assert operator_settings().database_url.get_secret_value() == RUNNING


def test_a_given_database_url_is_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "postgres" / "url").write_text(RUNNING)
    monkeypatch.setenv("DALSTON_DATABASE_URL", "postgresql://other@db/dalston")
    assert operator_settings().database_url.get_secret_value() == "postgresql://other@db/dalston"


def test_without_a_local_stack_the_default_is_used(home: Path) -> None:
    assert ":5432/" in operator_settings().database_url.get_secret_value()


def test_an_unreadable_local_stack_is_an_error(home: Path) -> None:
    (home / "postgres" / "url").mkdir()
    with pytest.raises(InvalidSettings, match="DALSTON_HOME: cannot read"):
        operator_settings()
