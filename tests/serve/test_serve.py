"""The real server in a process of its own, without torch, and real clients: streams, files, bad input, a browser."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request

import numpy as np
import psutil
import pytest
import soundfile
from browser import CHROMIUM, browse, local
from bundles import SENONES, WITHOUT_TORCH, with_confidences, write_graph
from lhotse import CutSet
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from asr_kd.bundle.__main__ import main as make_bundle
from asr_kd.bundle.config import Config
from asr_kd.features.audio import Resampler
from asr_kd.runtime import Recogniser, Word
from asr_kd.serve.posteriors import PhonePosteriors
from asr_kd.serve.service import stream_settings

ROOT = Path(__file__).parents[2]
RATE, TOKEN, CLIENTS, PATIENCE = 16000, "open sesame", 4, 4.0
START = {"type": "start", "rate": RATE, "format": "float32", "token": TOKEN}
END = '{"type": "end"}'


@pytest.fixture(scope="module")
def bundle(prepared, teachers, tmp_path_factory) -> Path:
    graph, out = write_graph(tmp_path_factory.mktemp("graph")), tmp_path_factory.mktemp("bundle") / "small"
    make_bundle(Config(teachers / "seed-0", graph, prepared.features, out, acoustic_scale=0.3, insertion_penalty=0.5))
    return with_confidences(out, out.with_name("sure"))


@pytest.fixture(scope="module")
def recogniser(bundle: Path) -> Recogniser:
    return Recogniser.from_bundle(bundle)


@pytest.fixture(scope="module")
def utterances(prepared) -> list[np.ndarray]:
    return [cut.load_audio()[0] for cut in CutSet.from_file(prepared.features / "cuts_test.jsonl.gz")]


def start_server(bundle: Path, *flags: str) -> tuple[subprocess.Popen[str], str]:
    """A server's process and its address."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", WITHOUT_TORCH, "asr_kd.serve", bundle, "--port", "0", *flags],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout
    line = process.stdout.readline()
    assert "asr_kd.serve: http://127.0.0.1:" in line, line + process.communicate(timeout=30)[0]
    return process, line.split("://")[1].strip().rstrip("/")


@pytest.fixture(scope="module")
def running(bundle: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server with low limits; at the end it is alive and has printed no traceback."""
    process, address = start_server(
        bundle, "--token", TOKEN, "--max-clients", str(CLIENTS), "--max-seconds", "30", "--max-bytes", "1000000",
        "--patience", str(PATIENCE), "--processes", "2",
    )  # fmt: skip
    yield process, address
    alive = process.poll() is None
    process.terminate()
    printed = process.communicate(timeout=30)[0]
    assert alive and "Traceback" not in printed, printed


@pytest.fixture
def server(running: tuple[subprocess.Popen[str], str]) -> str:
    return running[1]


def client(server: str) -> ClientConnection:
    return connect(f"ws://{server}/stream", compression=None, open_timeout=30)


def answers(server: str, messages: Iterable[Any]) -> list[dict[str, Any]]:
    """All that the server says to a client who sends messages, dictionaries as JSON, and waits for the end."""
    with client(server) as connection:
        with contextlib.suppress(ConnectionClosed):
            for message in messages:
                connection.send(json.dumps(message) if isinstance(message, dict) else message)
        return until_closed(connection)


def until_closed(connection: ClientConnection) -> list[dict[str, Any]]:
    messages = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            messages.append(json.loads(connection.recv(timeout=60)))
    return messages


def words_of(messages: list[dict[str, Any]]) -> tuple[Word, ...]:
    """The words of a stream, put together as docs/serving.md says."""
    words: list[dict[str, Any]] = []
    for message in messages[1:]:
        assert all(word["final"] for word in words[: message["from"]])
        words[message["from"] :] = message["words"]
    assert messages[0]["type"] == "ready" and messages[-1]["type"] == "result"
    assert messages[-1]["text"] == " ".join(word["text"] for word in words) and all(word.pop("final") for word in words)
    return tuple(Word(**word) for word in words)


def in_packets(samples: np.ndarray, size: int) -> list[bytes]:
    data = samples.tobytes()
    return [data[start : start + size] for start in range(0, len(data), size)]


def expected(recogniser: Recogniser, samples: np.ndarray) -> tuple[Word, ...]:
    stream = recogniser.stream(stream_settings())
    stream.accept(samples)
    return stream.finish().words


@pytest.mark.parametrize("size", [1000, 6401, 500_000])
def test_words_are_those_of_the_runtime(server: str, recogniser, utterances, size: int) -> None:
    samples = np.concatenate([utterances[0], np.zeros(RATE, np.float32), utterances[1]])
    messages = answers(server, [START, *in_packets(samples, size), END])
    assert words_of(messages) == expected(recogniser, samples) and len(messages) > 3
    integers = (samples * 32767).astype("<i2")
    messages = answers(server, [{**START, "format": "int16"}, *in_packets(integers, size), END])
    assert words_of(messages) == expected(recogniser, integers / np.float32(32768))


@pytest.mark.parametrize("rate", [44100, 11025, 47999])
def test_any_rate_is_resampled_as_a_whole(server: str, recogniser, utterances, rate: int) -> None:
    upwards = Resampler(RATE, 44100 if rate == 47999 else rate)
    samples = np.concatenate([upwards.accept(utterances[0]), upwards.finish()])
    down = Resampler(rate, RATE) if rate != 47999 else Resampler(3, 1)  # within a thousandth
    whole = np.concatenate([down.accept(samples), down.finish()])
    messages = answers(server, [{**START, "rate": rate}, *in_packets(samples, 7000), END])
    assert [word.text for word in words_of(messages)] == [word.text for word in expected(recogniser, whole)] != []


def test_posteriors_are_those_of_the_frames(server: str, bundle: Path, recogniser, utterances) -> None:
    messages = answers(server, [{**START, "posteriors": True}, *in_packets(utterances[0], 6400), END])
    assert messages[0]["phones"] == ["SIL", "P2", "P3", "P4", "P5", "P6"]
    rows: list[np.ndarray] = []
    for message in messages[1:]:
        if found := message.get("posteriors"):
            assert found["first"] == len(rows)
            rows += [*np.frombuffer(base64.b64decode(found["data"]), np.uint8).reshape(-1, SENONES)]
    assert len(rows) == len(utterances[0]) // 160
    scores: list[np.ndarray] = []
    stream = recogniser.stream(stream_settings(), scores.append)
    stream.accept(utterances[0])
    stream.finish()
    np.testing.assert_array_equal(rows, PhonePosteriors(bundle, recogniser.bundle)(np.concatenate(scores)))
    assert abs(np.sum(rows, 1).astype(int) - 255).max() <= 3
    assert np.mean(np.argmax(rows, 1) == np.concatenate(scores).argmax(1)) > 0.9


def test_silence_and_nothing_have_no_words(server: str) -> None:
    for samples in (np.zeros(0, np.float32), np.zeros(2 * RATE, np.float32), np.full(5, 0.1, np.float32)):
        assert words_of(answers(server, [START, *in_packets(samples, 4000), END])) == ()


AUDIO = np.random.default_rng(0).normal(scale=0.1, size=RATE).astype("<f4")
BAD_STREAMS = {
    "wrong token": ([{**START, "token": "open barley"}], "token is missing or wrong"),
    "no token": ([{"type": "start", "rate": RATE}], "token is missing or wrong"),
    "token of another kind": ([{**START, "token": [1]}], "token is missing or wrong"),
    "a million hertz": ([{**START, "rate": 1_000_000}], "the rate must be a whole number of Hz from 4000 to 768000"),
    "no rate": ([{**START, "rate": None}], "the rate must be"),
    "a huge rate": ([{**START, "rate": "9" * 1000}], "the rate must be"),
    "another format": ([{**START, "format": "mp3"}], "the format must be one of float32, int16"),
    "samples first": ([AUDIO.tobytes()], "the first message must be"),
    "no object": (["[1]"], "the first message must be"),
    "text as audio": ([START, AUDIO.tobytes(), "hello, hello"], "samples go into binary messages"),
    "deep text": ([START, "[" * 100_000], "samples go into binary messages"),
    "another start": ([START, START], 'samples as binary messages, and then {"type": "end"}'),
    "NaN": ([START, AUDIO.tobytes(), np.full(5000, np.nan, "<f4").tobytes()], "finite numbers"),
    "huge values": ([START, np.full(5000, 1e30, "<f4").tobytes()], "finite numbers"),
    "half a sample": ([START, AUDIO.tobytes()[:-1], END], "ends within a sample"),
    "hours": ([START, *[AUDIO.tobytes()] * 31], "longer than 30 s"),
}


@pytest.mark.parametrize("kind", BAD_STREAMS)
def test_bad_streams_are_answered(server: str, kind: str) -> None:
    messages, sentence = BAD_STREAMS[kind]
    answer = answers(server, messages)[-1]
    assert answer["type"] == "error" and sentence in answer["error"]


def raw_client(server: str) -> socket.socket:
    """A client that has begun a stream and shall do what no library does."""
    connection = socket.create_connection(server.split(":"), timeout=30)
    connection.sendall(
        f"GET /stream HTTP/1.1\r\nHost: {server}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    for message, answer in ((b"", b"\r\n\r\n"), (json.dumps({**START, "posteriors": True}).encode(), b'"ready"')):
        connection.sendall(frame(0x81, message) if message else b"")
        received = b""
        while answer not in received:
            received += (more := connection.recv(4096))
            assert more, received
    return connection


def frame(head: int, data: bytes) -> bytes:
    """A frame of a WebSocket, masked with zeros."""
    return bytes([head, 0x80 | 126]) + struct.pack("!H", len(data)) + bytes(4) + data


def test_messages_of_two_gigabytes_are_refused(server: str) -> None:
    with raw_client(server) as connection:
        connection.sendall(b"\x82\xff" + struct.pack("!Q", 2 << 30) + bytes(4) + b"some")
        received = b""
        while more := connection.recv(4096):
            received += more
        assert struct.pack("!H", 1009) in received  # "message too big"


def test_a_client_that_goes_leaves_its_place(server: str, recogniser, utterances) -> None:
    for number in range(2 * CLIENTS):
        time.sleep(0.2)
        connection = raw_client(server)
        connection.sendall(frame(0x82, utterances[0][:12345].tobytes()))
        if number % 2:  # with a reset instead of an end
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()  # in the middle of a word
    time.sleep(0.2)
    messages = answers(server, [START, utterances[0].tobytes(), END])
    assert words_of(messages) == expected(recogniser, utterances[0])


def test_a_process_that_dies_is_started_again(running, recogniser, utterances) -> None:
    process, server = running
    children = psutil.Process(process.pid).children()
    assert len(children) == 2
    with raw_client(server):  # one of them has a client, whose place is free again
        for child in children:
            child.kill()
    for _ in range(CLIENTS):
        assert words_of(answers(server, [START, utterances[0].tobytes(), END])) == expected(recogniser, utterances[0])
    assert process.poll() is None and not set(children) & set(psutil.Process(process.pid).children())


def test_more_clients_than_places_are_sent_away(server: str, recogniser, utterances) -> None:
    connections = [client(server) for _ in range(CLIENTS)]
    for connection in connections:
        connection.send(json.dumps(START))
        connection.recv(timeout=30)
    assert f"all {CLIENTS} places are taken" in answers(server, [START])[-1]["error"]
    assert "places are taken" in post(server, b"RIFF")[1]["error"]
    started = time.monotonic()
    for connection in connections:  # they say nothing, and are given up
        assert f"nothing came for {PATIENCE:g} s" in until_closed(connection)[-1]["error"]
    assert time.monotonic() - started < PATIENCE + 20


def test_a_client_that_never_reads_harms_nobody(server: str, recogniser, utterances) -> None:
    with raw_client(server) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        packet = frame(0x82, np.concatenate(utterances)[: RATE // 4].tobytes())
        for _ in range(80):  # 20 s of audio
            deaf.sendall(packet)
        messages = answers(server, [START, *in_packets(utterances[0], 6400), END])
        assert words_of(messages) == expected(recogniser, utterances[0])


def post(server: str, data: Any, token: str = TOKEN, **headers: str) -> tuple[int, dict[str, Any]]:
    request = Request(
        f"http://{server}/recognise", data, {"Authorization": f"Bearer {token}", **headers}, method="POST"
    )
    try:
        with local(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_files_are_recognised(server: str, recogniser, utterances, tmp_path: Path) -> None:
    for name, samples, rate in (("a.wav", utterances[0], RATE), ("b.flac", np.stack([utterances[1]] * 2, 1), 44100)):
        soundfile.write(tmp_path / name, samples, rate)
        status, answer = post(server, (tmp_path / name).read_bytes())
        assert status == 200 and tuple(Word(**word) for word in answer["words"]) == recogniser(tmp_path / name).words
        assert answer["text"] == recogniser(tmp_path / name).text != ""


def wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + samples.nbytes, b"WAVE", b"fmt ", 16, 3, 1, rate, 4 * rate,
                         4, 32, b"data", samples.nbytes)  # fmt: skip
    return header + samples.tobytes()


BAD_FILES = {
    "text": (b"hello, hello\n" * 100, 422, "the file cannot be read as audio"),
    "nothing": (b"", 422, "has no content"),
    "no samples": (wav(AUDIO[:0]), 422, "no samples"),
    "silence": (wav(np.zeros(RATE, "<f4")), 422, "digital silence"),
    "NaN": (wav(np.full(RATE, np.nan, "<f4")), 422, "NaN or infinite"),
    "a million hertz": (wav(AUDIO, 1_000_000), 422, "rate of 1000000 Hz"),
    "half a minute": (wav(np.tile(AUDIO[::4], 31), 4000), 422, "longer than 30 s"),
    "too large": (bytes(1_000_001), 413, "more than 1,000,000 bytes"),
    "too large, unannounced": (iter([bytes(600_000)] * 2), 413, "more than 1,000,000 bytes"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_are_answered(server: str, kind: str) -> None:
    data, expected_status, sentence = BAD_FILES[kind]
    status, answer = post(server, data)
    assert (status, sentence in answer["error"]) == (expected_status, True), answer
    assert "/tmp" not in answer["error"]


def test_two_gigabytes_are_refused_when_announced(server: str) -> None:
    with socket.create_connection(server.split(":"), timeout=30) as connection:
        head = f"POST /recognise HTTP/1.1\r\nHost: {server}\r\nAuthorization: Bearer {TOKEN}\r\n"
        connection.sendall(f"{head}Content-Length: {2 << 30}\r\n\r\nRIFF".encode())
        assert b"413" in connection.recv(100)


def test_strangers_are_refused(server: str) -> None:
    assert post(server, wav(AUDIO), token="open barley")[0] == 401
    assert post(server, wav(AUDIO), Origin="http://elsewhere.example")[0] == 403
    with connect(f"ws://{server}/stream", origin="http://elsewhere.example") as connection:
        assert "another site" in json.loads(connection.recv(timeout=30))["error"]


def test_wrong_flags_end_with_a_sentence(server: str, bundle: Path, tmp_path: Path) -> None:
    port = server.split(":")[1]
    for arguments, sentence in (((tmp_path,), "is no bundle"), ((bundle, "--port", port), "give another --port")):
        done = subprocess.run(
            [sys.executable, "-m", "asr_kd.serve", *arguments], capture_output=True, text=True, check=False, cwd=ROOT
        )
        assert done.returncode == 1 and sentence in done.stderr and "Traceback" not in done.stderr


def test_a_missing_package_is_named() -> None:
    script = "import runpy, sys; sys.modules['uvicorn'] = None; runpy.run_module('asr_kd.serve', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1 and "uvicorn is missing: pip install 'asr_kd[serve]'" in done.stderr, done.stderr


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed (Debian: apt-get install chromium)")
def test_a_browser_hears_a_microphone_and_files(bundle: Path, recogniser, utterances, tmp_path: Path) -> None:
    speech = np.concatenate([np.zeros(RATE // 2, np.float32), utterances[0], np.zeros(2 * RATE, np.float32)])
    soundfile.write(tmp_path / "speech.wav", speech, RATE)
    process, address = start_server(bundle)
    devices = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
               f"--use-file-for-fake-audio-capture={tmp_path / 'speech.wav'}%noloop")  # fmt: skip
    try:
        with browse(f"http://{address}/", tmp_path / "profile", *devices) as page:
            page.evaluate("document.getElementById('speak').click()")
            shown = page.wait("take && take.words.length > 3 && document.getElementById('text').innerText")
            assert page.evaluate("recording !== null") and shown.startswith("W")  # while it speaks
            page.wait("take.peaks.length > 450")
            page.evaluate("document.getElementById('speak').click()")
            page.wait("!take.live")
            heard = page.evaluate("take.words.map((word) => word.text).join(' ')")
            assert len(heard.split()) > 6 and page.evaluate("take.posteriors.length") > 300
            assert page.evaluate("document.querySelectorAll('#times tbody tr').length") == len(heard.split())
            title, doubt, sure = page.evaluate(
                "(({ title, style }) => [title, style.getPropertyValue('--doubt'), take.words[0].confidence].join('|'))"
                "(document.querySelector('#text span'))"
            ).split("|")
            assert abs(float(title.split("confidence ")[1].rstrip(" %")) - 100 * float(sure)) <= 0.5
            assert abs(float(doubt.rstrip("%")) - 60 * (1 - float(sure))) <= 0.5
            page.wait("canvas.toDataURL().length > 10000")  # something is drawn
            data = base64.b64encode((tmp_path / "speech.wav").read_bytes()).decode()
            file = f"new File([Uint8Array.from(atob('{data}'), (c) => c.charCodeAt(0))], 'a.wav')"
            assert page.evaluate(f"openFile({file}).then(() => 1)") == 1
            page.wait("!take.live")
            found = page.evaluate("take.words.map((word) => word.text).join(' ')")
            assert found == " ".join(word.text for word in expected(recogniser, speech))
            page.evaluate("openFile(new File(['hello'], 'a.txt')).then(() => 1)")
            assert "cannot be read as audio" in page.evaluate("document.getElementById('state').innerText")
            assert not page.faults or all("422" in fault for fault in page.faults), page.faults
    finally:
        process.terminate()
        process.communicate(timeout=30)
