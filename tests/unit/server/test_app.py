import pytest

from persistence.config import PersistenceSettings
from server import app
from server.config import ServerSettings
from server.inference.config import InferenceSettings
from server.session.session import MAX_PENDING


async def test_the_engine_queue_holds_all_utterances_of_the_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    class Made(Exception):
        """Ends the test."""

    def make(_: InferenceSettings, queue_limit: int) -> None:
        assert queue_limit >= 1000 * MAX_PENDING
        raise Made

    monkeypatch.setattr(app, "exit_on_signals", lambda: None)
    monkeypatch.setattr(app, "Engine", make)
    with pytest.raises(Made):
        await app.serve(ServerSettings(max_sessions=1000), InferenceSettings(), PersistenceSettings())
