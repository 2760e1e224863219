"""Where modules may import: the import graph is the real one, and --help is quick."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import asr_kd

ROOT = Path(asr_kd.__file__).parent
#: What runs without torch and tyro has its flags in its __main__.
WITHOUT_TYRO = {"asr_kd.runtime", "asr_kd.serve"}
COMMANDS = {".".join(path.parent.relative_to(ROOT.parent).parts) for path in ROOT.rglob("__main__.py")}
STAGES = sorted(COMMANDS - WITHOUT_TYRO)
#: Packages that take long to import.
HEAVY = {"torch", "torchaudio", "lhotse", "matplotlib", "scipy", "sklearn", "k2", "kaldifst", "kaldi_hmm_gmm"}
IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*{name.partition(".")[0] for name in sys.modules})
"""


def local_imports(path: Path) -> Iterator[str]:
    """Imports of asr_kd inside functions, as FILE:LINE."""
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        for node in ast.walk(function):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(module.partition(".")[0] == "asr_kd" for module in modules):
                yield f"{path.relative_to(ROOT.parent)}:{node.lineno}"


def test_only_main_modules_import_asr_kd_inside_functions() -> None:
    paths = [path for path in ROOT.rglob("*.py") if path.name != "__main__.py"]
    assert [place for path in paths for place in local_imports(path)] == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_describes_its_flags_in_config(stage: str) -> None:
    assert dataclasses.is_dataclass(importlib.import_module(f"{stage}.config").Config)


def test_help_imports_no_heavy_package() -> None:
    modules = [f"{stage}.{name}" for stage in STAGES for name in ("config", "__main__")]
    modules += [f"asr_kd.{path.stem}" for path in ROOT.glob("*.py") if path.stem != "__init__"]
    command = [sys.executable, "-c", IMPORT_ALL, *modules]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.split()) == set()
