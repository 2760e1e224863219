"""Ranges of settings: every numeric flag of every stage has one, and refuses what lies outside, however it is given."""

import dataclasses
import importlib
import math
import pkgutil
import re
import subprocess
import sys
import typing
from pathlib import Path
from typing import Annotated

import pytest
import yaml
from tyro.conf import Positional

import asr_kd
from asr_kd.common import cli
from asr_kd.common.errors import UserError
from asr_kd.common.settings import Count, Range, Settings, declared_range, ranges, within

#: Numeric flags that may have any finite value: logarithms.
FREE = {("asr_kd.decode", "insertion_penalty"), ("asr_kd.bundle", "insertion_penalty")}


def _configs() -> list[type]:
    """The dataclasses of flags of all stages."""
    found = []
    for module in pkgutil.walk_packages(asr_kd.__path__, "asr_kd."):
        if module.name.endswith(".config"):
            content = vars(importlib.import_module(module.name)).values()
            found += [one for one in content if dataclasses.is_dataclass(one) and one.__module__ == module.name]
    return found


CONFIGS = _configs()
FIELDS = [(config, name, allowed) for config in CONFIGS for name, allowed in ranges(config).items()]
IDS = [f"{config.__module__.removesuffix('.config')} {name}" for config, name, _ in FIELDS]


def _flags(config: type) -> list[str]:
    """Values for the flags that a stage needs."""
    flags, kinds = [], typing.get_type_hints(config, include_extras=True)
    for field in dataclasses.fields(config):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            positional = kinds[field.name] == Positional[tuple[Path, ...]]
            flags += ["1"] if positional else [f"--{field.name.replace('_', '-')}", "1"]
    return flags


def _outside(config: type, name: str, allowed: Range) -> list[float]:
    """Values just outside a range; of the field's type."""
    text = str(typing.get_type_hints(config)[name])
    whole = "int" in text
    step = 1 if whole else 1e-6
    values = [] if whole else [math.nan] + [math.inf] * (not allowed.infinite)
    if allowed.low > -math.inf:
        values.append(allowed.low if allowed.above else allowed.low - step)
    if allowed.high < math.inf:
        values.append(allowed.high if allowed.below else allowed.high + step)
    return [int(value) if whole else float(value) for value in values]


def test_every_stage_with_numbers_checks_them():
    assert len(CONFIGS) > 30
    assert [config for config in CONFIGS if ranges(config) and not issubclass(config, Settings)] == []


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__module__)
def test_every_numeric_flag_declares_a_range(config):
    kinds = typing.get_type_hints(config, include_extras=True)
    package = config.__module__.removesuffix(".config")
    missing = {name for name in ranges(config) if declared_range(kinds[name]) is None and (package, name) not in FREE}
    assert missing == set()


@pytest.mark.parametrize(("config", "name", "allowed"), FIELDS, ids=IDS)
def test_values_outside_a_range_are_refused_from_flags_and_yaml(config, name, allowed, tmp_path):
    flag, file = f"--{name.replace('_', '-')}", tmp_path / "conf.yaml"
    wrong = _outside(config, name, allowed)
    assert wrong
    fixed = typing.get_type_hints(config)[name] == tuple[int, int, int]
    for value in wrong:
        values = [value] * (3 if fixed else 1)
        refused = f"^{flag} is {re.escape(str(value))}, but must be {re.escape(str(allowed))}"
        with pytest.raises(UserError, match=refused):
            cli.parse(config, [*_flags(config), flag, *map(str, values)])
        file.write_text(yaml.safe_dump({name: values if fixed else value}))
        with pytest.raises(UserError, match=refused):
            cli.parse(config, [*_flags(config), "--config", str(file)])


@dataclasses.dataclass
class Config(Settings):
    """Flags for tests."""

    rates: Annotated[tuple[float, ...], within(above=0, below=1, filled=True, different=True)] = (0.5,)
    """Rates."""
    limit: Annotated[float, within(above=0, infinite=True)] = math.inf
    """A limit."""
    order: Count | None = None
    """An order."""


def test_ranges_of_tuples_and_optional_fields():
    assert Config((0.1, 0.9), 1e300, 3).rates == (0.1, 0.9)
    for values, message in (
        ({"rates": ()}, "--rates needs at least one value"),
        ({"rates": (0.1, 0.1)}, "--rates is 0.1 0.1, but its values must be different"),
        ({"rates": (0.1, 1.0)}, "--rates is 1.0, but must be above 0 and below 1"),
        ({"limit": math.nan}, "--limit is nan, but must be above 0, also inf"),
        ({"order": 0}, "--order is 0, but must be 1 or more: correct it"),
    ):
        with pytest.raises(UserError, match=message):
            Config(**values)


def test_help_shows_ranges_and_loads_no_torch():
    code = "import sys; from asr_kd.train.__main__ import main, Config, run\ntry: run(Config, main, ['--help'])\n"
    code += "finally: assert not {'torch', 'lhotse', 'scipy'} & set(sys.modules), 'slow'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "0.2; at least 0 and below 1)" in " ".join(done.stdout.replace("│", " ").split())


def test_an_error_in_yaml_is_one_sentence(tmp_path):
    file = tmp_path / "conf.yaml"
    for text, message in (
        ("limit: 1\nlimit: 2\n", "'limit' occurs twice"),
        ("- limit\n", "must have lines NAME: VALUE"),
        ("part: [1, 2]\n", "must have lines NAME: VALUE"),
        ("limit: [1\n", "is not valid YAML"),
    ):
        file.write_text(text)
        name = f"{file}:part" if "part" in text else str(file)
        with pytest.raises(UserError, match=message) as error:
            cli.parse(Config, ["--config", name])
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="does not exist"):
        cli.parse(Config, ["--config", str(tmp_path)])
