"""Pacing: detects sessions that send audio faster than real time, such as uploaded recordings. Pure."""

from collections.abc import Hashable

_BULK_SECONDS = 3.0
"""A session whose speech is ahead of real time by so much is bulk: a stalled network causes less."""
_MAX_LEAD_SECONDS = 6.0
"""The largest lead that is kept, so that a client that has resent audio after a lost connection is soon live
again..."""
_SHARE = 0.75
"""...for which this serves, too: the share of an utterance that counts if the earlier ones are transcribed."""
_LONGEST_SECONDS = 30.0
"""No utterance is longer."""


class Pace:
    """How far the speech of each session is ahead of real time. `now` is any clock, in seconds."""

    def __init__(self) -> None:
        self._speech_until: dict[Hashable, float] = {}

    def is_bulk(self, session: Hashable, seconds: float, now: float, others_wait: bool) -> bool:
        """Counts the next utterance of a session. Returns whether the session is bulk.

        Args:
            seconds: length of the utterance.
            now: when it arrives.
            others_wait: whether others of the session are not transcribed yet, as of a recording that waits for the
                model.
        """
        counted = seconds if others_wait else _SHARE * seconds
        begun = max(now - counted, self._speech_until.get(session, now - counted))
        until = min(begun + counted, now + _MAX_LEAD_SECONDS)
        # Old entries, many of them of sessions that have ended, no longer matter.
        self._speech_until = {key: at for key, at in self._speech_until.items() if at > now - _LONGEST_SECONDS}
        self._speech_until[session] = until
        return until - now > _BULK_SECONDS
