"""The one list of what the contract contains and this server does not implement yet.

The listed parameters of `TranscribeConfig` and the listed methods answer UNIMPLEMENTED.
"""

from typing import NoReturn

from google.protobuf.message import Message

from server.session.errors import NotBuilt

CONFIG_FIELDS: tuple[str, ...] = ()
METHODS = ("ListTranscripts", "SetCurrentTranscript", "DeleteTranscript", "TranscribeFile")


def refuse_fields(message: Message, names: tuple[str, ...]) -> None:
    """Raises NotBuilt if `message` uses one of the fields `names`."""
    used = {descriptor.name for descriptor, _ in message.ListFields()}
    for name in names:
        if name in used:
            raise NotBuilt(f"{name} is not supported by this server yet")


def refuse_method(name: str) -> NoReturn:
    """Raises NotBuilt for the method `name`."""
    raise NotBuilt(f"{name} is not supported by this server yet")
