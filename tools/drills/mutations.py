"""Damage to files, drawn at random: bytes, lines, numbers, keys, arrays, headers.

A mutation takes the bytes of a file and returns others; ``mutate`` draws one that suits the kind of file and changes
something.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import struct
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import yaml

Mutation = Callable[[bytes, random.Random], bytes]
#: Numbers that stand in place of others.
ODD_NUMBERS = ("-1", "0", "1e300", "-1e300", "nan", "inf", "1000000000000", "2.5", "1e-300", "seven", "", "٣")
#: Values that stand in place of others in JSON and YAML.
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 2.5, 10**12, -(10**12), 1e300, float("nan"), float("inf"), "", "seven", "false", [], {},
    [1, 2], {"a": 1}, "../../etc/passwd",
)  # fmt: skip
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


# ---------------------------------------------------------------- bytes


def _range(data: bytes, rng: random.Random, most: int = 4096) -> tuple[int, int]:
    """A random range of bytes, not empty unless the file is."""
    start = rng.randrange(max(1, len(data)))
    return start, min(len(data), start + rng.randint(1, most))


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(max(1, len(data)))]


def truncate_end(data: bytes, rng: random.Random) -> bytes:
    return data[: max(0, len(data) - rng.randint(1, 64))]


def flip_bit(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randint(2, 30)):
        data = flip_bit(data, rng)
    return data


def flip_head(data: bytes, rng: random.Random) -> bytes:
    return flip_bit(data[:128], rng) + data[128:]


def insert_bytes(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.randbytes(rng.randint(1, 64)) + data[place:]


def delete_bytes(data: bytes, rng: random.Random) -> bytes:
    start, stop = _range(data, rng, 512)
    return data[:start] + data[stop:]


def zero_bytes(data: bytes, rng: random.Random) -> bytes:
    start, stop = _range(data, rng)
    return data[:start] + bytes(stop - start) + data[stop:]


def zero_tail(data: bytes, rng: random.Random) -> bytes:
    """What a file system leaves of a file that was being written when the power failed."""
    start = rng.randrange(len(data))
    return data[:start] + bytes(len(data) - start)


def swap_bytes(data: bytes, rng: random.Random) -> bytes:
    head = rng.choice((0, 44, 128))
    body = np.frombuffer(data[head : len(data) - (len(data) - head) % 2], "<u2")
    return data[:head] + body.byteswap().tobytes()


def repeat_bytes(data: bytes, rng: random.Random) -> bytes:
    start, stop = _range(data, rng)
    return data[:stop] + data[start:stop] + data[stop:]


def empty(data: bytes, rng: random.Random) -> bytes:
    return b""


def noise(data: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(min(len(data), 2000))


BYTES: tuple[Mutation, ...] = (
    truncate, truncate_end, flip_bit, flip_bit, flip_bits, flip_head, insert_bytes, delete_bytes, zero_bytes, zero_tail,
    repeat_bytes, empty, noise,
)  # fmt: skip

# ---------------------------------------------------------------- text


def _lines(change: Callable[[list[bytes], random.Random], None]) -> Mutation:
    def mutation(data: bytes, rng: random.Random) -> bytes:
        lines = data.split(b"\n")
        change(lines, rng)
        return b"\n".join(lines)

    mutation.__name__ = change.__name__.lstrip("_")
    return mutation


def _delete_line(lines: list[bytes], rng: random.Random) -> None:
    del lines[rng.randrange(len(lines))]


def _repeat_line(lines: list[bytes], rng: random.Random) -> None:
    lines.insert(rng.randrange(len(lines)), rng.choice(lines))


def _swap_lines(lines: list[bytes], rng: random.Random) -> None:
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]


def _join_lines(lines: list[bytes], rng: random.Random) -> None:
    number = rng.randrange(len(lines))
    lines[number : number + 2] = [b" ".join(lines[number : number + 2])]


def _in_line(insert: bytes) -> Callable[[list[bytes], random.Random], None]:
    def change(lines: list[bytes], rng: random.Random) -> None:
        number = rng.randrange(len(lines))
        place = rng.randrange(len(lines[number]) + 1)
        lines[number] = lines[number][:place] + insert + lines[number][place:]

    change.__name__ = f"insert_{insert!r}"
    return change


def _drop_field(lines: list[bytes], rng: random.Random) -> None:
    number = rng.randrange(len(lines))
    fields = lines[number].split(b" ")
    del fields[rng.randrange(len(fields))]
    lines[number] = b" ".join(fields)


def _repeat_text(lines: list[bytes], rng: random.Random) -> None:
    number = rng.randrange(len(lines))
    lines[number] = lines[number] * 20000  # a very long line


def replace_number(data: bytes, rng: random.Random) -> bytes:
    found = list(NUMBER.finditer(data))
    if not found:
        return data
    match = rng.choice(found)
    return data[: match.start()] + rng.choice(ODD_NUMBERS).encode() + data[match.end() :]


def _recode(name: str, change: Callable[[str], bytes]) -> Mutation:
    def mutation(data: bytes, rng: random.Random) -> bytes:
        return change(data.decode("utf-8", "replace"))

    mutation.__name__ = name
    return mutation


def add_accent(data: bytes, rng: random.Random) -> bytes:
    """A letter with an accent, in Latin-1, UTF-8 or decomposed."""
    place = rng.randrange(len(data) + 1)
    letter = rng.choice((b"\xe9", "É".encode(), unicodedata.normalize("NFD", "É").encode(), "’".encode()))
    return data[:place] + letter + data[place:]


TEXT: tuple[Mutation, ...] = (
    *map(_lines, (_delete_line, _repeat_line, _swap_lines, _join_lines, _drop_field, _repeat_text)),
    *(_lines(_in_line(text)) for text in (b"\0", "\u2028".encode(), b"\t", b"\r", b"\xff", b"\x1b[31m")),
    replace_number, replace_number, add_accent, add_accent,
    _recode("utf16", lambda text: text.encode("utf-16")),
    _recode("bom", lambda text: b"\xef\xbb\xbf" + text.encode()),
    _recode("crlf", lambda text: text.replace("\n", "\r\n").encode()),
    _recode("cr", lambda text: text.replace("\n", "\r").encode()),
    _recode("no_end", lambda text: text.rstrip("\n").encode()),
    _recode("lower", lambda text: text.lower().encode()),
)  # fmt: skip


def unpacked(mutation: Mutation) -> Mutation:
    """The same damage inside a gzip file."""

    def mutated(data: bytes, rng: random.Random) -> bytes:
        return gzip.compress(mutation(gzip.decompress(data), rng), 1, mtime=0)

    mutated.__name__ = mutation.__name__
    return mutated


# ---------------------------------------------------------------- values


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in nested lists and dicts."""
    if not isinstance(value, (dict, list)):
        return []
    keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
    return [place for key in keys for place in [(value, key), *_places(value[key])]]


def change_value(value: Any, rng: random.Random) -> None:
    """Remove, rename or replace something in nested lists and dicts."""
    places = _places(value)
    if not places:
        return
    container, key = rng.choice(places)
    how = rng.choice(("remove", "rename", "replace", "replace", "replace", "negate"))
    if how == "rename" and isinstance(container, dict):
        container[f"{key}x"] = container.pop(key)
    elif how == "remove":
        del container[key]
    elif how == "negate" and isinstance(container[key], (int, float)):
        container[key] = -container[key] - 1
    else:
        container[key] = rng.choice(ODD_VALUES)


def change_json(data: bytes, rng: random.Random) -> bytes:
    """A value of a JSON file changed; of JSON lines, in one line."""
    try:
        value = json.loads(data)
    except ValueError:
        lines = data.splitlines(keepends=True)
        number = rng.randrange(len(lines))
        value = json.loads(lines[number])
        change_value(value, rng)
        lines[number] = json.dumps(value).encode() + b"\n"
        return b"".join(lines)
    change_value(value, rng)
    return json.dumps(value, indent=2).encode()


def change_yaml(data: bytes, rng: random.Random) -> bytes:
    """A value of a YAML file changed."""
    value = yaml.safe_load(data)
    change_value(value, rng)
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).encode()


def takes_long(data: bytes) -> bool:
    """Whether a YAML file asks for work without end, as a user may: many epochs or draws."""
    try:
        places = _places(yaml.safe_load(data))
    except (ValueError, yaml.YAMLError):
        return False
    values = [container[key] for container, key in places if str(key).strip() in ("epochs", "replications")]
    return any(isinstance(value, (int, float)) and value > 100_000 for value in values)


def change_array(data: bytes, rng: random.Random) -> bytes:
    """A .npy file with another shape or type, or other values."""
    array = np.load(io.BytesIO(data), allow_pickle=False)
    how = rng.choice(("shorter", "shape", "type", "value", "nan", "axis"))
    if how == "shorter":
        array = array[: len(array) - rng.randint(1, max(1, len(array) // 2))]
    elif how == "shape":
        array = array.reshape(-1)[: array.size - array.size % 2].reshape(2, -1)
    elif how == "type":
        array = array.astype(rng.choice(("<i8", ">f4", "<f8", "<c8", "S4", "<u2")))
    elif how == "axis":
        array = array.T.copy() if array.ndim > 1 else array[None]
    elif array.size:
        array = array.copy()
        odd = np.nan if how == "nan" and array.dtype.kind == "f" else rng.choice((0, 1, -1, 100, 30000))
        array.reshape(-1)[rng.randrange(array.size)] = np.array(odd).astype(array.dtype)
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def change_tensors(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file with a changed header, or with a weight that is not a number."""
    size = struct.unpack("<Q", data[:8])[0]
    how = rng.choice(("header", "size", "weight", "name"))
    if how == "size":
        return struct.pack("<Q", rng.choice((0, size + 1, 1 << 40, 1 << 63))) + data[8:]
    if how == "weight":
        place = 8 + size + 4 * rng.randrange((len(data) - 8 - size) // 4)
        return data[:place] + struct.pack("<f", rng.choice((float("nan"), float("inf"), 1e30, 0.5))) + data[place + 4 :]
    header = json.loads(data[8 : 8 + size])
    if how == "name":
        header["other"] = header.pop(rng.choice(list(header)))
    else:
        change_value(header, rng)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


#: Kind of file -> its mutations, those of bytes apart.
KINDS: Mapping[str, tuple[Mutation, ...]] = {
    "text": TEXT,
    "text.gz": tuple(map(unpacked, TEXT)),
    "json": (*(change_json,) * 20, *TEXT),
    "json.gz": (*(unpacked(change_json),) * 12, *map(unpacked, TEXT)),
    "yaml": (*(change_yaml,) * 20, *TEXT),
    "npy": (change_array,) * 12,
    "safetensors": (change_tensors,) * 12,
    "binary": (),
}  # fmt: skip
SUFFIXES = {
    ".json": "json", ".npy": "npy", ".safetensors": "safetensors", ".txt": "text", ".tsv": "text", ".yaml": "yaml",
    ".arpa": "text", ".scp": "text",
}  # fmt: skip


def kind_of(name: str) -> str:
    """The kind of a file by its name."""
    for suffix, kind in ((".jsonl.gz", "json.gz"), (".txt.gz", "text.gz"), (".arpa.gz", "text.gz")):
        if name.endswith(suffix):
            return kind
    return SUFFIXES.get(name[name.rfind(".") :], "binary")


def mutate(data: bytes, kind: str, rng: random.Random) -> tuple[str, bytes]:
    """The name of a mutation, and the damaged bytes, which differ from ``data``."""
    special = KINDS[kind]
    for _ in range(100):
        mutation = rng.choice(special if special and rng.random() < 0.65 else BYTES)
        try:
            changed = mutation(data, rng)
        except (ValueError, TypeError, IndexError, OverflowError):  # it does not suit this file
            continue
        if changed != data and not (kind == "yaml" and takes_long(changed)):
            return mutation.__name__, changed
    raise ValueError(f"no mutation changes these {len(data)} bytes of {kind}")
