import asyncio
from collections.abc import Sequence

import pytest

from domain.errors import StorageUnavailable
from server.access.errors import Unauthenticated
from server.access.gate import OpenGate
from server.rpc import readmission
from server.rpc.readmission import while_admitted


class Gate(OpenGate):
    """Answers as told, one after the other, and then with the last for ever."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, Sequence[str]]] = []

    async def readmit(self, method: str, authorization: Sequence[str]) -> None:
        self.asked.append((method, authorization))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            raise answer


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readmission, "READMIT_SECONDS", 0.01)


async def test_a_call_ends_with_its_key_and_not_while_nobody_can_tell() -> None:
    gate = Gate(None, StorageUnavailable("away"), Unauthenticated())
    with pytest.raises(Unauthenticated):
        async with while_admitted(gate, "GetAudio", ["Bearer x"]):
            await asyncio.sleep(10)
    assert gate.asked == [("GetAudio", ["Bearer x"])] * 3
    await asyncio.sleep(0.05)
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


async def test_a_call_whose_key_stays_good_ends_as_ever_and_asks_no_more() -> None:
    gate = Gate(None)
    async with while_admitted(gate, "GetAudio", []):
        await asyncio.sleep(0.05)
    asked = len(gate.asked)
    assert asked >= 1
    await asyncio.sleep(0.05)
    assert len(gate.asked) == asked
    with pytest.raises(ValueError, match="its own"):
        async with while_admitted(gate, "GetAudio", []):
            raise ValueError("its own")


async def test_a_client_that_goes_away_is_no_refusal() -> None:
    async def download() -> None:
        async with while_admitted(Gate(None), "GetAudio", []):
            await asyncio.sleep(10)

    task = asyncio.create_task(download())
    await asyncio.sleep(0.03)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
