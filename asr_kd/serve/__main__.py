"""``python -m asr_kd.serve``: a page, a WebSocket and REST that recognise with a bundle."""

import argparse
import functools
import os
import socket
import sys
from pathlib import Path

try:
    import uvicorn

    from asr_kd.common.errors import UserError
    from asr_kd.serve.app import make_app
    from asr_kd.serve.processes import listen, supervise
    from asr_kd.serve.service import Limits, Service, stream_settings
except ModuleNotFoundError as missing:
    sys.exit(f"asr_kd.serve: error: the package {missing.name} is missing: pip install 'asr_kd[serve]'")

#: Bytes of a message: two seconds of the highest rate.
MAX_MESSAGE = 1 << 20
LOCAL = ("127.0.0.1", "localhost", "::1")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The flags."""
    limits, settings = Limits(), stream_settings()
    parser = argparse.ArgumentParser("asr_kd.serve", description="Recognise in the browser with a bundle.")
    parser.add_argument("bundle", type=Path, help="folder made by asr_kd.bundle")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=int, default=8000, help="port; 0: any free one (default: 8000)")
    parser.add_argument("--token", default=os.environ.get("ASR_KD_TOKEN", ""), help="word that clients must give; the "
                        "variable ASR_KD_TOKEN hides it from lists of processes (default: none)")  # fmt: skip
    parser.add_argument("--max-clients", type=int, default=limits.max_clients, help="streams and files at once, "
                        f"others are sent away (default: {limits.max_clients})")  # fmt: skip
    parser.add_argument("--max-seconds", type=float, default=limits.max_seconds, help="seconds of audio in a stream or "
                        f"file (default: {limits.max_seconds:g})")  # fmt: skip
    parser.add_argument("--max-bytes", type=int, default=limits.max_bytes, help="bytes of a file (default: "
                        f"{limits.max_bytes})")  # fmt: skip
    parser.add_argument("--patience", type=float, default=limits.patience, help="seconds without a message after which "
                        f"a client is given up (default: {limits.patience:g})")  # fmt: skip
    parser.add_argument("--endpoint", type=float, default=settings.endpoint, help="seconds of silence that fix the "
                        f"words before them; 0: only the end does (default: {settings.endpoint:g})")  # fmt: skip
    parser.add_argument("--chunk", type=int, default=settings.chunk, help="frames that are scored at once: fewer are "
                        f"shown earlier, more let more clients speak (default: {settings.chunk})")  # fmt: skip
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="that share the clients (default: "
                        "one for each core)")  # fmt: skip
    parser.add_argument("--words", type=Path, help="file of words and phrases that are recognised too, as those of "
                        "asr_kd.runtime")  # fmt: skip
    parser.add_argument("--float32", action="store_true", help="use the network in float32 (default: int8)")
    flags = parser.parse_args(arguments)
    for name in ("max_clients", "max_seconds", "max_bytes", "patience", "chunk", "processes"):
        if not getattr(flags, name) > 0:
            parser.error(f"--{name.replace('_', '-')} must be above 0")
    if not 0 <= flags.port < 65536:
        parser.error("--port must be from 0 to 65535")
    return flags


def main(arguments: list[str] | None = None) -> None:
    """Serve until the process is ended."""
    flags = parse(arguments)
    limits = Limits(flags.token, flags.max_clients, flags.max_seconds, flags.max_bytes, flags.patience)
    settings = stream_settings(flags.endpoint, flags.chunk)
    try:
        service = Service.of(flags.bundle, settings, limits, flags.processes, not flags.float32, flags.words)
        sockets = listen(flags.host, flags.port, flags.processes)
        if flags.host not in LOCAL and not flags.token:
            print("asr_kd.serve: whoever reaches this machine can use the server: --token keeps others out")
        host = f"[{flags.host}]" if ":" in flags.host else flags.host
        print(f"asr_kd.serve: http://{host}:{sockets[0].getsockname()[1]}/", flush=True)
        supervise(flags.processes, functools.partial(serve, service, sockets))
    except UserError as error:
        sys.exit(f"asr_kd.serve: error: {error}")
    except KeyboardInterrupt:
        pass


def serve(service: Service, sockets: list[socket.socket], process: int) -> None:
    """Serve in one of the processes."""
    service.process, service.clients[process] = process, 0
    # No client is pinged: --patience is enough, and a ping would wait behind audio.
    config = uvicorn.Config(
        make_app(service), log_level="warning", ws_max_size=MAX_MESSAGE, ws_ping_interval=None,
        ws_per_message_deflate=False, limit_concurrency=4 * service.limits.max_clients + 16,
        timeout_graceful_shutdown=2, server_header=False,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[sockets[process]])


if __name__ == "__main__":
    main()
