"""Whose work it is."""

from collections.abc import Hashable


class Owner:
    """A session, as the engine tells it from others, and its tenant. Two of them are never equal."""

    __slots__ = ("tenant",)

    def __init__(self, tenant: Hashable = None) -> None:
        self.tenant = tenant


def tenant_of(session: Hashable) -> Hashable:
    """The tenant of whoever is named; what is no `Owner` belongs to one tenant, that of all who name none."""
    return session.tenant if isinstance(session, Owner) else None
