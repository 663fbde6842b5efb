import asyncio
from collections.abc import Sequence

import pytest

from domain.credentials import Authorization
from domain.errors import StorageUnavailable
from server.access.errors import Unauthenticated
from server.access.gate import OpenGate
from server.rpc import readmission
from server.rpc.readmission import while_admitted


class Gate(OpenGate):
    """Answers with the given answers in turn, and then with the last one forever."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, Sequence[str]]] = []

    async def readmit(self, method: str, authorization: Authorization) -> None:
        self.asked.append((method, authorization))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            raise answer


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readmission, "READMIT_SECONDS", 0.01)


async def test_a_call_ends_with_its_key_but_not_by_an_outage() -> None:
    gate = Gate(None, StorageUnavailable("away"), Unauthenticated())
    with pytest.raises(Unauthenticated):
        async with while_admitted(gate, "GetAudio", Authorization(("Bearer x",))):
            await asyncio.sleep(10)
    assert gate.asked == [("GetAudio", Authorization(("Bearer x",)))] * 3
    await asyncio.sleep(0.05)
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


async def test_checks_end_with_a_call_whose_key_stays_valid() -> None:
    gate = Gate(None)
    async with while_admitted(gate, "GetAudio", Authorization()):
        await asyncio.sleep(0.05)
    asked = len(gate.asked)
    assert asked >= 1
    await asyncio.sleep(0.05)
    assert len(gate.asked) == asked
    with pytest.raises(ValueError, match="its own"):
        async with while_admitted(gate, "GetAudio", Authorization()):
            raise ValueError("its own")


async def test_a_disconnect_is_not_reported_as_a_refusal() -> None:
    async def download() -> None:
        async with while_admitted(Gate(None), "GetAudio", Authorization()):
            await asyncio.sleep(10)

    task = asyncio.create_task(download())
    await asyncio.sleep(0.03)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
