"""Runs what a page of Markdown shows, from top to bottom, as its reader would.

=============================  =================================================================================
````` ```python `````          is run; all such blocks of a page are one program
````` ```python shop/a.py ```  is written to that file of the reader's folder, and can be imported
````` ```console `````         each line after ``$`` is given to a shell in that folder, and must succeed; the lines
                               below it must come in its output, in that order; ``…`` stands for anything
````` ```console worker `````  is typed into a terminal of that name, which stays open; its output is awaited, with
                               any numbers in the place of those shown; ``^C`` is the key
``<!--python … -->``           is run as the first one, but readers do not see it: preparations and checks
=============================  =================================================================================

A page finds a Redis of its own at ``HARNESS_REDIS_URL``. Blocks of other kinds, such as ``yaml``, are not run.
"""

from __future__ import annotations

import ast
import builtins
import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from tests.terminals import Terminal
from tests.workers import PATIENCE

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(
    r"^(```|<!--)(python|console)(?: ([\w./-]+))?\n(.*?)^(?:```|-->)$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """A piece of a page.

    :ivar target: file that it is written to, or terminal that it is typed into. :ivar line: where its text begins,
        from 1. :ivar lead: paragraph before it. :ivar hidden: whether readers do not see it.
    """

    kind: str
    target: str | None
    text: str
    line: int
    lead: str
    hidden: bool


def blocks(page: Path) -> list[Block]:
    """Return what a page shows to be run."""
    source = page.read_text(encoding="utf-8")
    return [
        Block(
            found[2], found[3], found[4], source.count("\n", 0, found.start(4)) + 1,
            source[: found.start()].rstrip().rpartition("\n\n")[2], found[1] == "<!--",
        )
        for found in _BLOCK.finditer(source)
    ]  # fmt: skip


def borrowed(code: str) -> set[str]:
    """Return the names that a block of code uses and does not define."""
    tree = ast.parse(code)
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    bound = {name.id for name in names if not isinstance(name.ctx, ast.Load)} | set(dir(builtins))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
    return {name.id for name in names} - bound


def run(page: Path, folder: Path) -> int:
    """Run a page in an empty folder, which must be the current one and on the path; return how many blocks that were.

    :raises AssertionError: if a command fails, or says something else.
    """
    names: dict[str, Any] = {"__name__": "page"}
    terminals: dict[str, Terminal] = {}
    found = blocks(page)
    with ExitStack() as opened:
        for block in found:
            if block.kind == "console" and block.target:
                if block.target not in terminals:
                    terminals[block.target] = Terminal(folder, _environment())
                    opened.callback(terminals[block.target].close)
                terminals[block.target].type(block.text)
            elif block.kind == "console":
                _run_commands(block.text, folder)
            elif block.target:
                target = folder / block.target
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(block.text, encoding="utf-8")
            else:
                # With as many lines before it as in the page, an error is shown where it is.
                code = "\n" * (block.line - 1) + block.text
                exec(compile(code, page.name, "exec", dont_inherit=True), names)  # noqa: S102 - the page's own code
    return len(found)


def _run_commands(text: str, folder: Path) -> None:
    for shown in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *expected = shown.replace("\\\n", "").splitlines()
        done = subprocess.run(
            ["bash", "-ec", command],  # noqa: S607 - the shell of the reader
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
