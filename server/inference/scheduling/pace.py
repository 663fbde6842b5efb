"""Which sessions hand speech over faster than anybody speaks: recordings that are sent as fast as they can be. Pure."""

from collections.abc import Hashable

_AHEAD_SECONDS = 3.0
"""A session that is ahead by so much is no live one: a network that stood still for a moment makes less."""
_MOST_SECONDS = 6.0
"""More is not remembered, so that who has sent again what a lost connection had swallowed is live again soon..."""
_SHARE = 0.75
"""...as is this: so much counts of an utterance that comes when those before it are through."""
_LONGEST_SECONDS = 30.0
"""No utterance is longer."""


class Pace:
    """How much more each session has said than there was time for. `now` is any clock, in seconds."""

    def __init__(self) -> None:
        self._said_until: dict[Hashable, float] = {}

    def is_bulk(self, session: Hashable, seconds: float, now: float, others_wait: bool) -> bool:
        """Takes the next utterance of a session; whether the session is ahead of its time.

        Args:
            seconds: how long the utterance is.
            now: when it comes.
            others_wait: whether others of the session are not through: a recording that the model holds up has some.
        """
        counted = seconds if others_wait else _SHARE * seconds
        begun = max(now - counted, self._said_until.get(session, now - counted))
        until = min(begun + counted, now + _MOST_SECONDS)
        # What was said long ago, by sessions that are over as well, is no longer in anybody's way.
        self._said_until = {who: at for who, at in self._said_until.items() if at > now - _LONGEST_SECONDS}
        self._said_until[session] = until
        return until - now > _AHEAD_SECONDS
