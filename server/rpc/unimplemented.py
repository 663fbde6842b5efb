"""What the contract has and this server does not have yet. The one list of it.

Parameters of `TranscribeConfig` listed here answer UNIMPLEMENTED when they are used, methods when they are called.
"""

from typing import NoReturn

from google.protobuf.message import Message

from server.session.errors import NotBuilt

CONFIG_FIELDS = ("enhance_on_end",)
METHODS = ("EnhanceSession", "GetEnhancement")


def refuse_fields(message: Message, names: tuple[str, ...]) -> None:
    """Raises NotBuilt if `message` uses one of the fields `names`."""
    used = {descriptor.name for descriptor, _ in message.ListFields()}
    for name in names:
        if name in used:
            raise NotBuilt(f"{name} is not supported by this server yet")


def refuse_method(name: str) -> NoReturn:
    """Raises NotBuilt for the method `name`."""
    raise NotBuilt(f"{name} is not supported by this server yet")
