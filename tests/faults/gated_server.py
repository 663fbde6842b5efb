"""`fault_server` with a recogniser that is stuck until the file named by `DALSTON_FAULT_GATE` is there."""

import asyncio
import os
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from server.inference.recognition import TEXT_ONLY, Recognition, RecognitionOptions
from tests.faults import fault_server

GATE = "DALSTON_FAULT_GATE"


class GatedEngine(fault_server.ScriptedEngine):
    async def recognize(
        self,
        model: str,
        samples: NDArray[np.float32],
        language: str | None,
        options: RecognitionOptions = TEXT_ONLY,
        *,
        session: object = None,
    ) -> Recognition:
        gate = Path(os.environ[GATE])
        while not gate.exists():  # noqa: ASYNC110, ASYNC240 - the one that opens it is another process
            await asyncio.sleep(0.05)
        return await super().recognize(model, samples, language, options, session=session)


if __name__ == "__main__":
    fault_server.ScriptedEngine = GatedEngine  # type: ignore[misc]
    sys.exit(fault_server.main())
