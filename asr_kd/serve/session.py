"""A stream of one client over a WebSocket (docs/serving.md describes the messages)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from typing import Any

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from asr_kd.common.errors import UserError
from asr_kd.runtime import Word
from asr_kd.serve.listener import FORMATS, Heard, Listener
from asr_kd.serve.service import Refusal, Service, check_origin

#: Frames of posteriors that wait for a client that reads slowly (10 s); older ones are dropped.
MAX_FRAMES = 1000


class Session:
    """One client.  It reads no faster than it recognises, and a client that reads slowly gets fewer messages.

    Args:
        socket: accepted.
        service: shared by all clients.
    """

    def __init__(self, socket: WebSocket, service: Service) -> None:
        self.socket, self.service = socket, service
        self._news = asyncio.Event()
        self._words: tuple[Word, ...] = ()
        self._fixed = self._sent = 0  # words that do not change any more; those of them that have been sent
        self._frames = np.empty((0, len(service.posteriors.names)), np.uint8)  # not yet sent
        self._scored, self._draws, self._over = 0, False, False

    async def run(self) -> None:
        """Answer until the stream ends.

        Raises:
            UserError: the client sent what cannot be used.
            WebSocketDisconnect: the client is gone.
        """
        listener = await self._begin()
        messages = asyncio.create_task(self._send_partials())
        try:
            while (data := await self._receive(listener)) is not None:
                for step in listener.steps(data):
                    self._hear(listener.accept(step))
                    await asyncio.sleep(0)  # it is the turn of others
            self._hear(listener.finish())
            await self._send_last(messages)
        finally:
            messages.cancel()
            with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect):
                await messages
        await self._send(self._message("result") | {"text": " ".join(word.text for word in self._words)})

    async def _begin(self) -> Listener:
        start = _parse(await self._next())
        self.service.check_token(start.get("token"))
        limits, recogniser = self.service.limits, self.service.recogniser
        listener = Listener(
            recogniser, self.service.settings, start.get("rate"), start.get("format", "float32"), limits.max_seconds
        )
        self._draws = start.get("posteriors") is True
        bundle = recogniser.bundle
        await self._send(
            {
                "type": "ready", "rate": bundle.sampling_rate, "frame": bundle.seconds,
                "max_seconds": limits.max_seconds,
                "phones": self.service.posteriors.names if self._draws else [],
            }
        )  # fmt: skip
        return listener

    async def _next(self) -> str | bytes:
        try:
            async with asyncio.timeout(self.service.limits.patience):
                message = await self.socket.receive()
        except TimeoutError:
            raise Refusal(f"nothing came for {self.service.limits.patience:g} s: begin another stream", 408) from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        text: str | bytes | None = message.get("text")
        return message["bytes"] if text is None else text

    async def _receive(self, listener: Listener) -> bytes | None:
        """Samples, or None at the end of the stream."""
        message = await self._next()
        if isinstance(message, bytes):
            return message
        if _parse(message).get("type") != "end":
            raise UserError('after "start" come samples as binary messages, and then {"type": "end"}')
        return None

    def _hear(self, heard: Heard) -> None:
        self._scored += len(heard.scores)
        if self._draws:
            self._frames = np.concatenate([self._frames, self.service.posteriors(heard.scores)])[-MAX_FRAMES:]
        if len(self._frames) or (heard.words, heard.fixed) != (self._words, self._fixed):
            self._news.set()
        self._words, self._fixed = heard.words, heard.fixed

    async def _send_partials(self) -> None:
        while True:
            await self._news.wait()
            if self._over:
                return
            self._news.clear()
            await self.socket.send_json(self._message("partial"))

    async def _send_last(self, messages: asyncio.Task[None]) -> None:
        """Wait until a message that is on its way has left: the result takes up where it ends."""
        self._over = True
        self._news.set()
        try:
            async with asyncio.timeout(self.service.limits.patience):
                await messages
        except TimeoutError:
            raise WebSocketDisconnect(1001) from None

    def _message(self, kind: str) -> dict[str, Any]:
        """All that has changed since the last message."""
        first, self._sent = self._sent, self._fixed
        words = [{**word._asdict(), "final": i < self._fixed} for i, word in enumerate(self._words) if i >= first]
        heard = round(self._scored * self.service.recogniser.bundle.seconds, 3)
        message = {"type": kind, "time": heard, "from": first, "words": words}
        if len(frames := self._frames):
            data = base64.b64encode(frames.tobytes()).decode()
            message["posteriors"] = {"first": self._scored - len(frames), "data": data}
            self._frames = frames[:0]
        return message

    async def _send(self, message: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(self.service.limits.patience):
                await self.socket.send_json(message)
        except TimeoutError:
            raise WebSocketDisconnect(1001) from None


def _parse(message: str | bytes) -> dict[str, Any]:
    fault = f'the first message must be {{"type": "start", "rate": …, "format": one of {", ".join(FORMATS)}}} as text'
    try:
        content = json.loads(message) if isinstance(message, str) else None
    except (ValueError, RecursionError):
        raise UserError("a text message is no JSON: samples go into binary messages") from None
    if not isinstance(content, dict):
        raise UserError(fault)
    return content


async def serve_stream(socket: WebSocket, service: Service) -> None:
    """Answer one client; all that it does wrong is answered too, with ``{"type": "error", "error": sentence}``."""
    await socket.accept()
    session = Session(socket, service)
    try:
        try:
            check_origin(socket)
            with service.place():
                await session.run()
            await socket.close()
        except UserError as error:
            code = error.code if isinstance(error, Refusal) else 1008
            async with asyncio.timeout(service.limits.patience):
                await socket.send_json({"type": "error", "error": str(error)})
                await socket.close(code)
    except (WebSocketDisconnect, TimeoutError, asyncio.CancelledError):
        pass  # the client is gone, or the server ends
