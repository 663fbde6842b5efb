"""The one list of what the contract contains and this server does not implement yet.

The listed methods answer UNIMPLEMENTED.
"""

from typing import NoReturn

from server.session.errors import NotBuilt

METHODS = ("ListTranscripts", "SetCurrentTranscript", "DeleteTranscript", "TranscribeFile")


def refuse_method(name: str) -> NoReturn:
    """Raises NotBuilt for the method `name`."""
    raise NotBuilt(f"{name} is not supported by this server yet")
