"""What identifies the session of an utterance to the engine."""

from collections.abc import Hashable


class SessionKey:
    """Identifies a session and its tenant to the engine. Two keys are never equal."""

    __slots__ = ("tenant",)

    def __init__(self, tenant: Hashable = None) -> None:
        self.tenant = tenant


def tenant_of(session: Hashable) -> Hashable:
    """The tenant of a session. All sessions that are not a `SessionKey` belong to one tenant, None."""
    return session.tenant if isinstance(session, SessionKey) else None
