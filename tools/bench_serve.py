"""Many clients at once: none dropped, words as the runtime's, memory, and how late words come.

    python tools/bench_serve.py BUNDLE AUDIO... --clients 50 --seconds 120 --out serve.json

A server is started in a process of its own.  Every client speaks the recordings, each beginning with another, with
half a second of silence between them, at the pace of real speech, over WebSockets on this machine, as one stream.  Its
delay is the time from sending a moment of its audio to the message that tells the words up to that moment: the frames
that are scored at once, the network's look-ahead and the turns of all others are in it.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from websockets.asyncio.client import connect

from asr_kd.common.files import write_json
from asr_kd.features.audio import read_audio
from asr_kd.runtime import Recogniser
from asr_kd.serve.service import stream_settings

#: Seconds of audio in a packet.
PACKET = 0.1


@dataclasses.dataclass
class Client:
    """What one client said and heard.

    Attributes:
        samples: (N,) that it says.
        words: of the result, with times; None if there was none.
        delays: seconds from each message to the sending of the moment of the audio that it has reached.
        fault: what went wrong.
    """

    samples: np.ndarray
    words: list[dict[str, Any]] | None = None
    delays: list[float] = dataclasses.field(default_factory=list)
    fault: str = ""


async def speak(client: Client, url: str, rate: int, begin: float) -> None:
    """Say the samples in real time from the moment ``begin`` on; fill in what comes back."""
    try:
        async with connect(url, compression=None, open_timeout=60, ping_interval=None) as connection:
            await connection.send(json.dumps({"type": "start", "rate": rate, "format": "float32"}))
            await connection.recv()
            sent: list[float] = []
            listening = asyncio.create_task(_listen(client, connection, sent))
            step = round(PACKET * rate)
            for number, start in enumerate(range(0, len(client.samples), step)):
                await asyncio.sleep(max(0.0, begin + number * PACKET - time.monotonic()))
                await connection.send(client.samples[start : start + step].tobytes())
                sent.append(time.monotonic())
            await connection.send('{"type": "end"}')
            await listening
    except Exception as error:  # whatever it is, the client was dropped
        client.fault = f"{type(error).__name__}: {error}"


async def _listen(client: Client, connection: Any, sent: list[float]) -> None:
    words: list[dict[str, Any]] = []
    async for message in connection:
        now, content = time.monotonic(), json.loads(message)
        if content["type"] == "error":
            client.fault = content["error"]
            return
        words[content["from"] :] = content["words"]
        if content["type"] == "partial":
            client.delays.append(now - sent[min(int(content["time"] / PACKET), len(sent) - 1)])
        else:
            client.words = words


def recordings(paths: list[Path], rate: int, clients: int, seconds: float) -> list[Client]:
    """Clients that say all recordings, each beginning with another."""
    pause = np.zeros(rate // 2, np.float32)
    spoken = [np.concatenate([read_audio(path, rate), pause]) for path in paths]
    return [
        Client(
            np.resize(np.concatenate([*spoken[i % len(spoken) :], *spoken[: i % len(spoken)]]), round(seconds * rate))
        )
        for i in range(clients)
    ]


async def measure(clients: list[Client], url: str, rate: int, process: psutil.Process) -> dict[str, Any]:
    """Let all clients speak; returns memory (MiB, every five seconds) and how many cores the server took."""
    await asyncio.sleep(2)  # until all its processes have started
    processes = [process, *process.children()]
    begin, cpu = time.monotonic() + 1, _cpu_seconds(processes)
    # They begin within a second, as people do not all begin in the same moment.
    tasks = [
        asyncio.create_task(speak(client, url, rate, begin + i / len(clients))) for i, client in enumerate(clients)
    ]
    memory = []
    while not all(task.done() for task in tasks):
        await asyncio.wait(tasks, timeout=5)
        # What is shared counts once, in the first process.
        private = sum(other.memory_full_info().uss for other in processes[1:])
        memory.append(round((process.memory_info().rss + private) / 2**20, 1))
    wall = time.monotonic() - begin
    return {"memory_mib": memory, "cores": (_cpu_seconds(processes) - cpu) / wall, "wall": wall}


def _cpu_seconds(processes: list[psutil.Process]) -> float:
    return sum(times.user + times.system for times in (process.cpu_times() for process in processes))


def expected(recogniser: Recogniser, samples: np.ndarray, chunk: int) -> list[dict[str, Any]]:
    """The words of a stream of the runtime."""
    stream = recogniser.stream(stream_settings(chunk=chunk))
    for part in np.array_split(samples, max(1, len(samples) // 16000)):
        stream.accept(part)
    return [{**word._asdict(), "final": True} for word in stream.finish().words]


def main() -> None:
    """Start a server, let the clients speak, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("audio", type=Path, nargs="+")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--chunk", type=int, default=stream_settings().chunk, help="see asr_kd.serve")
    parser.add_argument("--out", type=Path, help="JSON file")
    flags = parser.parse_args()
    recogniser = Recogniser.from_bundle(flags.bundle)
    rate = recogniser.bundle.sampling_rate
    clients = recordings(flags.audio, rate, flags.clients, flags.seconds)
    command = [sys.executable, "-m", "asr_kd.serve", flags.bundle, "--port", "0", "--chunk", str(flags.chunk)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as server:
        assert server.stdout
        url = server.stdout.readline().split(": ")[1].strip().replace("http", "ws") + "stream"
        figures = asyncio.run(measure(clients, url, rate, psutil.Process(server.pid)))
        server.terminate()
    wanted: dict[bytes, list[dict[str, Any]]] = {}
    for client in clients:
        key = client.samples.tobytes()
        if key not in wanted:
            wanted[key] = expected(recogniser, client.samples, flags.chunk)
    delays = np.concatenate([client.delays for client in clients])
    figures |= {
        "clients": len(clients), "seconds": flags.seconds,
        "dropped": [client.fault or "no result" for client in clients if client.words is None],
        "other_words": sum(client.words != wanted[client.samples.tobytes()] for client in clients),
        "words": sum(len(client.words or ()) for client in clients),
        "delay_ms": {str(share): float(np.percentile(delays, share) * 1000) for share in (50, 90, 99, 100)},
    }  # fmt: skip
    print(json.dumps(figures, indent=2))
    if flags.out:
        write_json(flags.out, figures)


if __name__ == "__main__":
    main()
