"""Which protocol is served at which path. A new one is a module, and an import and an entry here."""

from types import MappingProxyType

from bridge.protocols.interface import Protocols
from bridge.protocols.native.protocol import PATH, NativeProtocol

PROTOCOLS: Protocols = MappingProxyType({PATH: NativeProtocol})
