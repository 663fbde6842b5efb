"""A file made of stretches of objects and of bytes that no object has. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes of an object, from `first` on."""

    key: str
    first: int
    size: int
    version: str = ""
    """Tells the object from another of the same key and size, where that is known."""

    def between(self, begin: int, end: int) -> "Stored":
        """The bytes from `begin` to `end` of these."""
        return Stored(self.key, self.first + begin, end - begin, self.version)

    @property
    def identity(self) -> bytes:
        """Differs whenever the bytes may."""
        return f"{self.key} {self.first} {self.size} {self.version}".encode()


@dataclass(frozen=True, slots=True)
class Given:
    """Bytes as they are."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def between(self, begin: int, end: int) -> "Given":
        """The bytes from `begin` to `end` of these."""
        return Given(self.data[begin:end])

    @property
    def identity(self) -> bytes:
        """Differs whenever the bytes may."""
        return self.data

    def chunks(self) -> Iterator[bytes]:
        """All of them."""
        if self.data:
            yield self.data


@dataclass(frozen=True, slots=True)
class Repeated:
    """One byte many times: silence."""

    byte: bytes
    size: int

    def between(self, begin: int, end: int) -> "Repeated":
        """The bytes from `begin` to `end` of these."""
        return Repeated(self.byte, end - begin)

    @property
    def identity(self) -> bytes:
        """Differs whenever the bytes may."""
        return self.byte + b" %d" % self.size

    def chunks(self) -> Iterator[bytes]:
        """All of them, 64 KiB at a time."""
        whole, rest = divmod(self.size, _CHUNK_BYTES)
        for _ in range(whole):
            yield self.byte * _CHUNK_BYTES
        if rest:
            yield self.byte * rest


Piece = Stored | Given | Repeated


@dataclass(frozen=True, slots=True)
class ByteMap:
    """Which bytes a file has, one piece after the other."""

    pieces: tuple[Piece, ...]

    @classmethod
    def of(cls, pieces: Sequence[Piece]) -> "ByteMap":
        """The pieces that have any bytes."""
        return cls(tuple(piece for piece in pieces if piece.size > 0))

    @property
    def size(self) -> int:
        """Length of the file."""
        return sum(piece.size for piece in self.pieces)

    @property
    def identity(self) -> bytes:
        """Differs whenever the file's bytes may."""
        return b"\n".join(piece.identity for piece in self.pieces)

    def between(self, begin: int, end: int) -> "ByteMap":
        """The part of the file from byte `begin` to the one before `end`."""
        wanted: list[Piece] = []
        position = 0
        for piece in self.pieces:
            first, last = max(begin - position, 0), min(end - position, piece.size)
            if first < last:
                wanted.append(piece.between(first, last))
            position += piece.size
        return ByteMap(tuple(wanted))
