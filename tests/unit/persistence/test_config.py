"""Settings of persistence."""

import pytest
from pydantic import SecretStr, ValidationError

from persistence.config import PersistenceSettings


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgresql://u:p%40@h:1/d", "postgresql+asyncpg://u:p%40@h:1/d"),
        ("postgres://h/d", "postgresql+asyncpg://h/d"),
        ("postgresql+asyncpg://h/d", "postgresql+asyncpg://h/d"),
        ("postgresql://h/d?sslmode=verify-full", "postgresql+asyncpg://h/d?ssl=verify-full"),
    ],
)
def test_the_driver_is_added_to_the_url(given: str, expected: str) -> None:
    assert PersistenceSettings(database_url=SecretStr(given)).sqlalchemy_url == expected


@pytest.mark.parametrize("changes", [{"s3_access_key_id": "x"}, {"database_url": "mysql://h/d"}, {"worker_id": "../x"}])
def test_invalid_settings_are_refused(changes: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        PersistenceSettings(**changes)  # type: ignore[arg-type]


def test_secrets_are_not_shown() -> None:
    settings = PersistenceSettings(
        database_url=SecretStr("postgresql://u:hidden@h/d"),
        s3_access_key_id=SecretStr("hidden"),
        s3_secret_access_key=SecretStr("hidden"),
    )
    assert "hidden" not in repr(settings)


def test_every_process_has_its_own_worker_id() -> None:
    assert PersistenceSettings().worker_id != PersistenceSettings().worker_id
