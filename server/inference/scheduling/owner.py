"""The owner of an utterance."""

from collections.abc import Hashable


class Owner:
    """Identifies a session and its tenant to the engine. Two owners are never equal."""

    __slots__ = ("tenant",)

    def __init__(self, tenant: Hashable = None) -> None:
        self.tenant = tenant


def tenant_of(session: Hashable) -> Hashable:
    """The tenant of a session. All sessions that are not an `Owner` belong to one tenant, None."""
    return session.tenant if isinstance(session, Owner) else None
