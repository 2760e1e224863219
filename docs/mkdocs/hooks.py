"""Hooks of the documentation's build."""

import posixpath
import re
from typing import Any


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Turn links to files outside docs/, which the pages do not contain, into their paths."""

    def path(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), link[1]))
        return f"`{target.removeprefix('../')}`" if target.startswith("../") else link[0]

    return re.sub(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)", path, markdown)
