"""Ends an utterance by wall time when no more audio arrives. Pure.

A client that mutes the microphone, or whose user has released a push-to-talk button, sends nothing: no silence arrives
that would end the utterance. Wall time ends it then.
"""

from typing import Final

TICK_SECONDS: Final = 0.25
"""How often to call `is_due`."""
_JITTER_SECONDS: Final = 1.0
"""How much later than expected audio may arrive, beyond the silence that ends an utterance."""
_MAX_BURST_SECONDS: Final = 5.0
"""The longest pieces of live audio that are waited for."""
_UNKNOWN_SECONDS: Final = 1.0
"""How much of a burst is assumed to be live where that is unknown: of the first burst, and of one after a pause."""


class EndpointTimer:
    """Follows the arrival of one session's audio. `now` is a monotonic clock, in seconds.

    Audio that is sent in pieces arrives in bursts: a piece of 2 s takes 2 s to collect, and so does the next, which is
    not late until then. A burst that arrives about as long after the previous one as it lasts is such a piece, and the
    timer waits as long for the next. A burst that arrives sooner is a recording, sent as fast as possible; one that
    arrives much later may be a recording, too, made while a button was held.
    """

    def __init__(self, min_silence_seconds: float, now: float) -> None:
        self._timeout = min_silence_seconds + _JITTER_SECONDS
        self._has_begun = False
        self._played_until = now
        self._gap = 0.0
        self._burst = 0.0
        self._processed_at = self._ticked_at = now
        self._idle = 0.0

    def note_arrival(self, seconds: float, now: float) -> None:
        """Notes that audio of this length has arrived and is about to be processed."""
        gap = now - self._processed_at
        if not self._has_begun:
            self._has_begun, gap = True, max(gap, _UNKNOWN_SECONDS)
        self._gap = gap if now >= self._played_until else max(self._gap, gap)
        # The audio that would not have been played yet, if all of it were played from its arrival on.
        self._burst = max(self._played_until - now, 0.0) + seconds
        self._played_until = now + self._burst

    def note_processed(self, now: float) -> None:
        """Notes that everything that has arrived is processed: the session waits for its client from now on."""
        self._processed_at = self._ticked_at = now
        self._idle = 0.0

    def is_due(self, now: float) -> bool:
        """Whether the audio has stopped. To be called every `TICK_SECONDS` while nothing is being processed."""
        # A process that was suspended for a while has received nothing either.
        self._idle += min(now - self._ticked_at, 2 * TICK_SECONDS)
        self._ticked_at = now
        return self._has_begun and self._idle >= self._timeout + self._collecting

    @property
    def _collecting(self) -> float:
        """How long the client is likely to take for its next piece."""
        is_steady = self._gap <= self._burst + _JITTER_SECONDS
        return min(self._burst, self._gap, _MAX_BURST_SECONDS if is_steady else _UNKNOWN_SECONDS)
