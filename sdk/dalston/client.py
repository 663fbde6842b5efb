"""The client, for code without asyncio: the asynchronous one on a thread of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from datetime import datetime
from types import TracebackType
from typing import Self, Unpack

from dalston import background
from dalston.async_audio import AsyncAudio
from dalston.async_client import DEFAULT_TIMEOUT, AsyncClient
from dalston.async_keys import AsyncKeys, AsyncTokens
from dalston.async_sessions import AsyncSessions
from dalston.events import Reconnecting
from dalston.options import AudioSource, TranscribeOptions
from dalston.records import (
    Enhancement,
    ExportFormat,
    Key,
    NewKey,
    Scope,
    Session,
    SessionChange,
    SessionPage,
    SessionStatus,
    Token,
    Transcript,
    Utterance,
)
from dalston.transcription import Transcription


class Client:
    """A client of one service, as one caller. Arguments and errors are those of `AsyncClient`.

    It may be used from several threads. Close it, or use it as a context manager.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        ca_file: str | os.PathLike[str] | None = None,
    ) -> None:
        self._client = AsyncClient(url, api_key, timeout=timeout, ca_file=ca_file)
        self.sessions = Sessions(self._client.sessions)
        self.keys = Keys(self._client.keys)
        self.tokens = Tokens(self._client.tokens)

    def transcribe(self, audio: AudioSource, **options: Unpack[TranscribeOptions]) -> Transcription:
        """Transcribes audio while it comes: enter what this returns, and iterate over its events.

        See `AsyncClient.transcribe`.
        """
        return Transcription(self._client.transcribe(audio, **options))

    def close(self) -> None:
        """Closes the connection. What still runs fails with RuntimeError."""
        background.run(self._client.close())

    def __enter__(self) -> Self:
        background.run(self._client.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Sessions:
    """Sessions of the caller's tenant. Errors are those of `AsyncSessions`."""

    def __init__(self, sessions: AsyncSessions) -> None:
        self._sessions = sessions

    def list(
        self,
        *,
        status: SessionStatus | str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> Iterator[Session]:
        """Sessions, newest first; pages are fetched as they are needed."""
        return background.iterate(self._sessions.list(status=status, since=since, until=until, limit=limit))

    def page(
        self,
        *,
        status: SessionStatus | str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> SessionPage:
        """One page of `list`: the first, or the one after the page that `cursor` is the `next_cursor` of."""
        return background.run(self._sessions.page(status=status, since=since, until=until, limit=limit, cursor=cursor))

    def get(self, session_id: str) -> Session:
        """One session."""
        return background.run(self._sessions.get(session_id))

    def delete(self, session_id: str) -> None:
        """Deletes a session with its audio and transcript, for good."""
        background.run(self._sessions.delete(session_id))

    def end(self, session_id: str) -> Session:
        """Ends a live session, whichever server runs it; gives it as it is when its server has been asked."""
        return background.run(self._sessions.end(session_id))

    def audio(self, session_id: str, *, linked: bool = False, start: int = 0) -> Audio:
        """The stored audio, a WAV file: read it whole, save it, or iterate over it.

        Args:
            linked: whether the sessions that this one continues are joined with it.
            start: where in the file to begin, in bytes, such as to go on with a part that is here.
        """
        return Audio(self._sessions.audio(session_id, linked=linked, start=start))

    def transcript(self, session_id: str, *, linked: bool = False) -> Transcript:
        """The stored transcript."""
        return background.run(self._sessions.transcript(session_id, linked=linked))

    def utterances(self, session_id: str, *, follow: bool = False, interval: float = 1.0) -> Iterator[Utterance]:
        """What the session has said so far; with `follow`, whatever it says until it ends."""
        return background.iterate(self._sessions.utterances(session_id, follow=follow, interval=interval))

    def export(
        self,
        session_id: str,
        format: ExportFormat | str,  # noqa: A002 - what it is called
        *,
        linked: bool = False,
        max_line_length: int | None = None,
        max_lines: int | None = None,
    ) -> str:
        """The stored transcript as text, captions or JSON."""
        return background.run(
            self._sessions.export(
                session_id, format, linked=linked, max_line_length=max_line_length, max_lines=max_lines
            )
        )

    def watch(
        self,
        *,
        status: SessionStatus | str | None = None,
        resume_token: str | None = None,
        on_reconnect: Callable[[Reconnecting], object] | None = None,
    ) -> Iterator[SessionChange]:
        """First every session as it is, then every change, for ever.

        Args:
            on_reconnect: is called, on another thread, when there is no connection, before each attempt to make one.
        """
        return background.iterate(
            self._sessions.watch(status=status, resume_token=resume_token, on_reconnect=on_reconnect)
        )

    def enhance(self, session_id: str, *, model: str | None = None) -> Enhancement:
        """Starts a batch job that transcribes the stored audio anew. It is tried once."""
        return background.run(self._sessions.enhance(session_id, model=model))

    def enhancement(self, session_id: str) -> Enhancement:
        """The state of a session's batch job."""
        return background.run(self._sessions.enhancement(session_id))


class Audio:
    """A WAV file on the service. A download that breaks goes on where it was."""

    def __init__(self, audio: AsyncAudio) -> None:
        self._audio = audio

    @property
    def start(self) -> int:
        """Where in the file it begins, in bytes."""
        return self._audio.start

    @property
    def size(self) -> int | None:
        """Bytes of the whole file, whatever `start` is; known as soon as its first piece has come."""
        return self._audio.size

    def __iter__(self) -> Generator[bytes, None, None]:
        """The file from `start` on, in pieces of any size."""
        return background.iterate(aiter(self._audio))

    def read(self) -> bytes:
        """The file from `start` on."""
        return background.run(self._audio.read())

    def save(self, path: str | os.PathLike[str]) -> int:
        """Writes the file from `start` on to `path`, which appears when it is whole; gives the bytes written."""
        return background.run(self._audio.save(path))


class Keys:
    """The tenant's API keys. Every method needs a key with the scope `admin`."""

    def __init__(self, keys: AsyncKeys) -> None:
        self._keys = keys

    def create(self, name: str, scopes: Iterable[Scope | str], *, expires_in_seconds: int | None = None) -> NewKey:
        """Makes a key. Its secret is in the answer and nowhere else. It is tried once."""
        return background.run(self._keys.create(name, scopes, expires_in_seconds=expires_in_seconds))

    def list(self) -> Iterator[Key]:
        """All keys, newest first, revoked and expired ones included."""
        return background.iterate(self._keys.list())

    def revoke(self, key_id: str) -> Key:
        """Revokes a key: within seconds it is refused everywhere."""
        return background.run(self._keys.revoke(key_id))


class Tokens:
    """Short-lived tokens, for a client that must not hold a key."""

    def __init__(self, tokens: AsyncTokens) -> None:
        self._tokens = tokens

    def create(self, *, expires_in_seconds: int | None = None) -> Token:
        """Makes a token that opens one live session, once. Needs the scope `realtime`."""
        return background.run(self._tokens.create(expires_in_seconds=expires_in_seconds))
