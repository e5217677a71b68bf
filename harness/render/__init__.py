"""A :class:`~harness.compare.Comparison`, put for terminals, for CI jobs and for people to look at."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.render.html import html
from harness.render.markdown import markdown
from harness.render.pictures import pictures
from harness.render.text import text

if TYPE_CHECKING:
    from harness.compare import Change, Comparison

__all__ = ["html", "markdown", "pictures", "text", "write"]


def write(
    comparison: Comparison, folder: str | os.PathLike[str], changes: Sequence[Change] | None = None
) -> None:
    """Write ``comparison.json``, ``.md``, ``.html`` and the pictures into an existing folder, none of them half."""
    folder = Path(folder)
    outputs = {
        "comparison.md": markdown(comparison, changes),
        "comparison.html": html(comparison, changes),
        **pictures(comparison),
    }
    comparison.save(folder / "comparison.json")
    for name, content in outputs.items():
        unfinished = folder / f".{name}.{os.getpid()}"
        try:
            unfinished.write_text(content, encoding="utf-8")
            unfinished.replace(folder / name)
        finally:
            unfinished.unlink(missing_ok=True)
