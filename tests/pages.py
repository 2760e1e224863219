"""The code and the commands of the documentation's pages, run as they are printed there."""

import importlib
import re
import shlex
import string
from pathlib import Path
from typing import Any

from asr_kd.common.cli import parse

DOCS = Path(__file__).parents[1] / "docs"


def fenced(page: str, language: str, heading: str = "") -> list[str]:
    """The blocks of one language in a page, or below one of its headings (## …)."""
    text = (DOCS / page).read_text(encoding="utf-8")
    if heading:
        text = re.split(r"^## ", text.split(f"\n## {heading}\n")[1], flags=re.MULTILINE)[0]
    blocks = re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert blocks, f"{page} has no {language} under {heading!r}"
    return blocks


def run_python(page: str, heading: str, names: dict[str, Any]) -> dict[str, Any]:
    """Run the Python below a heading, given the names that the page has defined before; returns all names."""
    for block in fenced(page, "python", heading):
        exec(compile(block, f"{page}: {heading}", "exec"), names)
    return names


def run_commands(page: str, heading: str = "") -> list[str]:
    """Run the stages among the commands below a heading in this process; returns the names of the modules."""
    variables, modules = {}, []
    for block in fenced(page, "bash", heading):
        for line in block.replace("\\\n", " ").splitlines():
            line = string.Template(line.split(" #")[0].strip()).safe_substitute(variables)
            if assignment := re.fullmatch(r"(\w+)=(\S+)", line):
                variables[assignment[1]] = assignment[2]
            elif line:
                _, option, module, *flags = shlex.split(line)
                assert option == "-m", line
                main = importlib.import_module(f"{module}.__main__").main
                main(parse(importlib.import_module(f"{module}.config").Config, flags))
                modules.append(module)
    return modules
