"""How a call ends: the parts of the call report what they observe, and the end reason is decided here."""

import asyncio
from typing import Final, Literal

from domain.session import EndReason
from persistence.recording.pipeline import Classify

DISCONNECTED: Final = EndReason("interrupted", "the client went away")
STOPPED: Final = EndReason("interrupted", "the server stopped")
COMPLETED: Final = EndReason("completed")

# A connection that breaks often looks half-closed first, and its cancellation follows. The wait for the cancellation is
# divided into turns: in a busy event loop the cancellation arrives later, and every turn takes as much longer.
_BREAK_SECONDS: Final = 0.05
_BREAK_TURNS: Final = 10


class CallEnd:
    """Everything that decides how a call ends."""

    def __init__(self, classify: Classify) -> None:
        """`classify` returns the end reason of a session that an exception of the servicer ended."""
        self._classify = classify
        self._disconnected = asyncio.Event()
        self._closed_by: Literal["end", "half-close"] | None = None
        self._forced_by: Exception | None = None
        self._superseded_by: Exception | None = None

    @property
    def is_disconnected(self) -> bool:
        """Whether the transport has abandoned the call: nothing more is read from it or written to it."""
        return self._disconnected.is_set()

    @property
    def is_superseded(self) -> bool:
        """Whether another session continues the session of this call."""
        return self._superseded_by is not None

    def note_disconnect(self) -> None:
        """The transport has abandoned the call."""
        self._disconnected.set()

    async def wait_disconnected(self) -> None:
        """Returns when the transport has abandoned the call."""
        await self._disconnected.wait()

    def note_end(self) -> None:
        """The client has sent `end`."""
        self._closed_by = "end"

    def note_half_close(self) -> None:
        """The client will send nothing more."""
        self._closed_by = "half-close"

    def note_forced(self, error: Exception) -> None:
        """The server ends the call by `error`, whatever the servicer is doing."""
        self._forced_by = error

    def note_superseded(self, error: Exception) -> None:
        """Another session continues the session of this call; `error` is for the client, if it is still connected."""
        self._superseded_by = error

    async def decide(self, error: BaseException | None) -> EndReason:
        """The end reason of the session.

        Args:
            error: what the servicer raised; CancelledError if it was cancelled.
        """
        if error is None and self._closed_by == "half-close":
            await self._await_disconnect()
            if not self.is_disconnected:
                self._closed_by = "end"
        is_cancelled = isinstance(error, asyncio.CancelledError)
        if self.is_disconnected and (is_cancelled or self._closed_by != "end"):
            return DISCONNECTED
        if is_cancelled:
            return STOPPED
        return COMPLETED if error is None else self._classify(error)

    def servicer_error(self, servicer: asyncio.Task[None]) -> BaseException | None:
        """The error that ended a servicer which is done; None if it returned."""
        if self._forced_by is not None:
            return self._forced_by
        if servicer.cancelled():
            return asyncio.CancelledError("the servicer was cancelled")
        return servicer.exception()

    def client_error(self, error: BaseException | None) -> BaseException | None:
        """The error to answer the client with after the servicer ended by `error`; None if there is none."""
        if self._superseded_by is not None:
            # The client may still be connected, although it seemed not to be.
            return self._superseded_by
        if error is None or self.is_disconnected:
            return None
        if isinstance(error, asyncio.CancelledError):
            # The transport asked for no cancellation: if it were raised, the client would receive no answer.
            return RuntimeError("the session was cut short")
        return error

    async def _await_disconnect(self) -> None:
        for _ in range(_BREAK_TURNS):
            await asyncio.sleep(_BREAK_SECONDS / _BREAK_TURNS)
