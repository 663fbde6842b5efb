"""`fault_server` with a recogniser that hangs until the file named by `DALSTON_FAULT_GATE` exists."""

import asyncio
import os
import sys
from pathlib import Path

from server.inference.recognition import Recognition
from tests.faults import fault_server
from tests.recognizers import Asked

GATE = "DALSTON_FAULT_GATE"


class GatedEngine(fault_server.ScriptedEngine):
    async def answer(self, asked: Asked) -> Recognition:
        gate = Path(os.environ[GATE])
        while not gate.exists():  # noqa: ASYNC110, ASYNC240 - the one that opens it is another process
            await asyncio.sleep(0.05)
        return await super().answer(asked)


if __name__ == "__main__":
    fault_server.ScriptedEngine = GatedEngine  # type: ignore[misc]
    sys.exit(fault_server.main())
