"""The recogniser, the threads that all clients share, and what a client may take of them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hmac
import multiprocessing
from collections.abc import Callable, Iterator, MutableSequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from asr_kd.common.errors import UserError
from asr_kd.runtime import Recogniser
from asr_kd.runtime.stream import Settings
from asr_kd.serve.posteriors import PhonePosteriors

Result = TypeVar("Result")


def stream_settings(endpoint: float = Settings().endpoint, chunk: int = 20) -> Settings:
    """Settings of streams whose audio comes in steps of ``chunk`` frames: a chunk can be scored right after a step.

    The last frames of a step are not whole yet: windows are longer than the shift from one to the next.
    """
    return Settings(endpoint=endpoint, chunk=chunk, begin=-(-Settings().begin // chunk) * chunk - 2)


class Refusal(UserError):
    """Why a client is sent away, with the status codes of HTTP and WebSocket that say so."""

    def __init__(self, sentence: str, status: int, code: int = 1008) -> None:
        super().__init__(sentence)
        self.status, self.code = status, code


@dataclasses.dataclass(frozen=True)
class Limits:
    """What clients may take.

    Attributes:
        token: which they must give; empty: none.
        max_clients: streams and files at once.
        max_seconds: of audio in a stream or a file.
        max_bytes: of a file.
        patience: seconds without a message, or without reading the answer, after which a client is given up.
    """

    token: str = ""
    max_clients: int = 64
    max_seconds: float = 600.0
    max_bytes: int = 64 << 20
    patience: float = 30.0


class Service:
    """What all clients share.

    Steps of streams are taken in the event loop, one of each client in turn, so that each gets its share, however fast
    it sends.  Files have a thread of their own.

    Args:
        recogniser, posteriors: of one bundle.
        settings: of streams.
        limits: of clients.
        clients: how many there are now, for each process that serves; they share it.
    """

    def __init__(
        self, recogniser: Recogniser, posteriors: PhonePosteriors, settings: Settings, limits: Limits,
        clients: MutableSequence[int],
    ) -> None:  # fmt: skip
        self.recogniser, self.posteriors, self.settings, self.limits = recogniser, posteriors, settings, limits
        self.clients, self.process = clients, 0
        self._files = ThreadPoolExecutor(1, "files")

    @classmethod
    def of(
        cls, folder: Path, settings: Settings, limits: Limits, processes: int, quantised: bool = True,
        new_words: Path | None = None,
    ) -> Service:  # fmt: skip
        """The service of a bundle.

        Raises:
            UserError: the bundle, or a new word, cannot be used.
        """
        recogniser = Recogniser.from_bundle(folder, quantised, new_words=new_words)
        clients = multiprocessing.get_context("fork").RawArray("i", processes)
        return cls(recogniser, PhonePosteriors(folder, recogniser.bundle), settings, limits, clients)

    async def file_step(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Take a step of a file in its turn."""
        return await asyncio.get_running_loop().run_in_executor(self._files, function, *arguments)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """One of the places for clients.

        Raises:
            Refusal: none is free.
        """
        if sum(self.clients) >= self.limits.max_clients:
            raise Refusal(f"all {self.limits.max_clients} places are taken: try again in a while", 503, 1013)
        self.clients[self.process] += 1
        try:
            yield
        finally:
            self.clients[self.process] -= 1

    def check_token(self, token: object) -> None:
        """Compare the token that a client gave.

        Raises:
            Refusal: it is another.
        """
        expected = self.limits.token.encode()
        given = token.encode("utf-8", "replace") if isinstance(token, str) else b""
        if expected and not hmac.compare_digest(given, expected):
            raise Refusal("the token is missing or wrong: give the one that the server was started with", 401)


def check_origin(connection: HTTPConnection) -> None:
    """Refuse what the page of another site asks a browser to send.

    Raises:
        Refusal: it is not from our page, nor from a program.
    """
    origin = connection.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != connection.headers.get("host"):
        raise Refusal("this page belongs to another site: open the page of this server", 403)
