"""Bars: drawn together with records on a terminal, and printed as occasional lines without one."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from harness.monitor import TrialBar
from tests.commands import Terminal

pytestmark = pytest.mark.process

BAR = re.compile(
    r"^trials [━╸╺ ]+ +(\d)/3 (\d:\d\d:\d\d) left (-:--:--|\d:\d\d:\d\d) (\w+) every:19$", re.MULTILINE
)


def test_records_stand_above_the_bar(tmp_path: Path) -> None:
    """The bar is the last line, whole on 80 columns, and names the trial that runs; at the end it is gone."""
    arguments = ["run", "scenarios.orders", "--interrupt", "every:19", "--pace", "0.02"]
    running = {"1": "steps", "2": "iteration"}
    with Terminal(*arguments, folder=tmp_path) as terminal:
        text = terminal.read_until(lambda text: bool(re.search("[12]/3", text)))
        assert text.startswith("orders   plain ")
        bar = BAR.search(text)
        assert bar, text
        assert bar[4] == running[bar[1]]
        assert text[bar.end() :].strip() == ""
        assert terminal.end() == 1
        lines = terminal.text.rstrip().splitlines()
    assert [line.split()[:2] for line in lines[::2]] == [
        ["orders", "plain"], ["orders", "steps"], ["orders", "iteration"],
    ]  # fmt: skip
    assert len(lines) == 6  # a record takes two


def test_records_go_where_standard_output_goes(tmp_path: Path) -> None:
    """A bar on the terminal does not keep records back from a file."""
    file = tmp_path / "records"
    arguments = ["run", "scenarios.orders", "--pace", "0.01", "--json"]
    with (
        file.open("w") as output,
        Terminal(*arguments, folder=tmp_path, output=output) as terminal,
    ):
        terminal.read_until(lambda text: "/3" in text and file.read_text().endswith("\n"))
        assert terminal.end() == 0
        assert terminal.text.strip() == ""
    assert [json.loads(line)["pattern"] for line in file.read_text().splitlines()] == [
        "plain", "steps", "iteration",
    ]  # fmt: skip


def said_by(bar_lines: io.StringIO) -> list[str]:
    """Return the lines that were written."""
    return bar_lines.getvalue().splitlines()


def test_without_a_terminal_there_is_a_line_now_and_then() -> None:
    """Ten, where it is known how many trials there are; else one in ten seconds."""
    written = io.StringIO()
    bar = TrialBar(100, Console(file=written))
    for _ in range(100):
        bar.advance()
    bar.stop()
    assert said_by(written) == [f"trials {done}/100" for done in range(10, 101, 10)]
    written, now = io.StringIO(), [0.0]
    bar = TrialBar(100, Console(file=written), clock=lambda: now[0])
    for done in range(1, 301):
        now[0] += 0.25
        bar.reach(done, max(100, done))
    bar.stop()
    assert said_by(written) == [f"trials {done}/{max(100, done)}" for done in range(40, 301, 40)]


def test_an_exploration_leaves_no_bar(tmp_path: Path) -> None:
    """Only the verdict stays on the terminal, and a pipe gets nothing else."""
    arguments = ["explore", "scenarios.orders", "--form", "iteration", "--sample", "1"]
    with Terminal(*arguments, folder=tmp_path) as terminal:
        terminal.end()
        assert terminal.text.startswith("scenarios.orders:OrdersByIteration: ")
        assert "━" not in terminal.text
    said = subprocess.run(
        [sys.executable, "-m", "harness", *arguments], capture_output=True, text=True, check=False
    )
    assert said.stderr == ""
