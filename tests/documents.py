"""Runs what a page of Markdown shows, from top to bottom, as its reader would.

============================  ==================================================================================
````` ```python `````         is run; all such blocks of a page are one program
````` ```python shop/a.py ```  is written to that file of the reader's folder, and can be imported
````` ```console `````        each line after ``$`` is given to a shell in that folder, and must succeed; the lines
                              below it must come in its output, in that order; ``…`` stands for anything
``<!--python … -->``          as the first one, but not seen: what a page takes for granted, and what is to be checked
============================  ==================================================================================

A page finds a Redis of its own at ``REDIS_URL``. Blocks of other kinds, such as ``yaml``, are not run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tests.workers import PATIENCE

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(
    r"^(?:```|<!--)(python|console)(?: ([\w./-]+))?\n(.*?)^(?:```|-->)$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """A piece of a page.

    :ivar line: where its text begins, from 1. :ivar file: what it is to be written to.
    """

    kind: str
    file: str | None
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """Return what is to be run of a page."""
    source = page.read_text(encoding="utf-8")
    return [
        Block(found[1], found[2], found[3], source.count("\n", 0, found.start(3)) + 1)
        for found in _BLOCK.finditer(source)
    ]


def run(page: Path, folder: Path) -> int:
    """Run a page in an empty folder, which must be the current one and on the path; return how many blocks that were.

    :raises AssertionError: if a command fails, or says something else.
    """
    names: dict[str, Any] = {"__name__": "page"}
    found = blocks(page)
    for block in found:
        if block.file:
            target = folder / block.file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
        elif block.kind == "python":
            # With as many lines before it as in the page, an error is shown where it is.
            code = "\n" * (block.line - 1) + block.text
            exec(compile(code, page.name, "exec", dont_inherit=True), names)  # noqa: S102 - the page's own code
        else:
            _run_commands(block.text, folder)
    return len(found)


def _run_commands(text: str, folder: Path) -> None:
    for shown in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *expected = shown.replace("\\\n", "").splitlines()
        done = subprocess.run(
            ["bash", "-ec", command],  # noqa: S607 - the shell of whoever reads
            cwd=folder, env=_environment(), text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE,
        )  # fmt: skip
        output = done.stdout
        assert done.returncode == 0, f"$ {command}\n{output}"
        pattern = ".*".join(re.escape(line.strip()).replace("…", ".*?") for line in expected if line.strip())
        assert re.search(pattern, output, re.DOTALL), f"$ {command}\n{output}\nshown is:\n" + "\n".join(
            expected
        )


def _environment() -> dict[str, str]:
    """Return a reader's environment; like the reader's, it has no ``PYTHONPATH`` that leads to the folder."""
    binaries = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": binaries, "COLUMNS": "100"}
