import os

import pytest

from bridge.config import BridgeSettings
from persistence.config import PersistenceSettings
from server.config import ServerSettings
from server.inference.config import InferenceSettings
from stack.settings import StackSettings
from telemetry.variables import VARIABLES, unknown_variables, warn_of_unknown_variables
from uploads.config import UploadsSettings
from worker.config import WorkerSettings

SETTINGS = (
    *(ServerSettings, InferenceSettings, PersistenceSettings, BridgeSettings, UploadsSettings, WorkerSettings),
    StackSettings,
)


def test_every_setting_of_every_program_is_known_and_nothing_else() -> None:
    read = {f"DALSTON_{name.upper()}" for kind in SETTINGS for name in kind.model_fields}
    assert VARIABLES - read == {"DALSTON_URL", "DALSTON_API_KEY"}
    assert read - VARIABLES == set()


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("DALSTON_MAX_SESSION", "DALSTON_MAX_SESSIONS"),
        ("DALSTON_DATABSE_URL", "DALSTON_DATABASE_URL"),
        ("DALSTON_TLS_CERTIFICATE", "DALSTON_TLS_CERT"),
        ("dalston_auht", "DALSTON_AUTH"),
        ("DALSTON_QQQQQQQQ", None),
    ],
)
def test_a_mistyped_variable_is_named_with_the_nearest_known_one(name: str, near: str | None) -> None:
    environment = {name: "hunter2", "DALSTON_PORT": "1", "dalston_home": "x", "PATH": "", "OTHER_PORT": "1"}
    assert unknown_variables(environment) == {name: near}


def test_the_warning_shows_no_value(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in [name for name in os.environ if name.startswith("DALSTON_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DALSTON_APIKEY", "hunter2")
    warn_of_unknown_variables()
    out = "".join(capsys.readouterr())
    assert out.count("DALSTON_APIKEY") == 1
    assert "DALSTON_API_KEY" in out
    assert "hunter2" not in out
