"""Write a report into a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from harness.boundary.files import write_whole
from harness.report.changes import Change
from harness.report.comparisons import Comparison
from harness.report.html import html
from harness.report.markdown import markdown
from harness.report.pictures import pictures


def write(
    comparison: Comparison, folder: str | os.PathLike[str], changes: Sequence[Change] | None = None
) -> None:
    """Write ``comparison.json``, ``.md``, ``.html`` and the pictures into an existing folder, each file atomically."""
    folder = Path(folder)
    comparison.save(folder / "comparison.json")
    outputs = {
        "comparison.md": markdown(comparison, changes),
        "comparison.html": html(comparison, changes),
        **pictures(comparison),
    }
    for name, content in outputs.items():
        write_whole(folder / name, content)
