"""What the methods about keys and about logins share: the caller's key, and the message of a key."""

from typing import NamedTuple
from uuid import UUID

from dalston.v1 import key_pb2 as pb

from domain.tenancy import current_caller
from persistence.postgres.api_keys import ApiKey, format_key_id
from server.access.errors import AuthenticationOff
from server.rpc.times import timestamp


class Holder(NamedTuple):
    """The caller of a method that needs a key."""

    tenant_id: UUID
    key_id: UUID
    login_id: UUID | None
    """The login by which the key is used; None for the key itself."""


def key_holder() -> Holder:
    """The caller of this call.

    Raises:
        AuthenticationOff: this server has no keys.
    """
    caller = current_caller.get()
    if caller.key_id is None:
        raise AuthenticationOff
    return Holder(caller.tenant_id, caller.key_id, caller.login_id)


def key_message(key: ApiKey) -> pb.Key:
    """The message of a key."""
    return pb.Key(
        id=key.key_id,
        name=key.name,
        prefix=key.prefix,
        scopes=key.scopes,
        created_at=timestamp(key.created_at),
        expires_at=timestamp(key.expires_at),
        revoked_at=timestamp(key.revoked_at),
        last_used_at=timestamp(key.last_used_at),
        created_by=format_key_id(key.created_by) if key.created_by else None,
    )
