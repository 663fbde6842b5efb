"""`fault_server` with an engine that dies once it has transcribed something."""

import sys

from server.inference.errors import EngineStopped
from server.inference.recognition import Recognition
from tests.faults import fault_server
from tests.recognizers import Asked


class DyingEngine(fault_server.ScriptedEngine):
    async def answer(self, asked: Asked) -> Recognition:
        if self.died.is_set():
            raise EngineStopped("the engine stopped")
        self.died.set()
        return await super().answer(asked)


if __name__ == "__main__":
    fault_server.ScriptedEngine = DyingEngine  # type: ignore[misc]
    sys.exit(fault_server.main())
