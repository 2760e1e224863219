"""The routes of the server."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import IO

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from asr_kd.common.errors import UserError
from asr_kd.runtime import Word
from asr_kd.serve.service import Refusal, Service, check_origin
from asr_kd.serve.session import serve_stream

#: The page needs nothing from elsewhere, and may not.
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'unsafe-inline' blob:; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}


def make_app(service: Service) -> Starlette:
    """The page at ``/``, streams at ``/stream``, files at ``/recognise``."""
    page = HTMLResponse((Path(__file__).parent / "page.html").read_text(encoding="utf-8"), headers=HEADERS)

    async def show(request: Request) -> Response:
        return page

    async def stream(socket: WebSocket) -> None:
        await serve_stream(socket, service)

    async def recognise(request: Request) -> Response:
        try:
            check_origin(request)
            service.check_token(request.headers.get("authorization", "").removeprefix("Bearer "))
            with service.place(), tempfile.NamedTemporaryFile(prefix="asr_kd-") as file:
                await _save(request, file, service)
                words = await _words(Path(file.name), service)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except UserError as error:
            return JSONResponse({"error": str(error)}, error.status if isinstance(error, Refusal) else 422)
        text = " ".join(word.text for word in words)
        return JSONResponse({"text": text, "words": [word._asdict() for word in words]})

    routes = [Route("/", show), Route("/recognise", recognise, methods=["POST"]), WebSocketRoute("/stream", stream)]
    return Starlette(routes=routes)


async def _save(request: Request, file: IO[bytes], service: Service) -> None:
    """Write the body of a request to a file.

    Raises:
        Refusal: it is too large, empty, or does not come.
    """
    limits = service.limits
    large = Refusal(f"the file has more than {limits.max_bytes:,} bytes: cut it into shorter ones", 413)
    announced = request.headers.get("content-length", "0")
    # What is a little too large is read all the same: a client that is still sending may not see an answer.
    if len(announced) > 15 or int(announced) > 2 * limits.max_bytes:  # the server has checked that it is a number
        raise large
    size, body = 0, request.stream()
    try:
        async with asyncio.timeout(limits.max_seconds):
            while block := await asyncio.wait_for(anext(body, b""), limits.patience):
                size += len(block)
                if size > 2 * limits.max_bytes:
                    raise large
                if size <= limits.max_bytes:
                    file.write(block)
    except TimeoutError:
        raise Refusal("the file does not come: send it again", 408) from None
    if size > limits.max_bytes:
        raise large
    if not size:
        raise Refusal("the request has no content: send the bytes of an audio file", 422)
    file.flush()


async def _words(path: Path, service: Service) -> list[Word]:
    words: list[Word] = []
    results = service.recogniser.results(path, service.limits.max_seconds)
    try:
        while result := await service.file_step(next, results, None):
            words += result.words
    except UserError as error:
        raise UserError(str(error).replace(str(path), "the file")) from None
    return words
