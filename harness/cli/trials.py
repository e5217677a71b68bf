"""Trials of a scenario for ``harness run``, and their records as lines."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from textwrap import wrap
from typing import Any

from rich.console import Console

from harness import interruptions, lab
from harness.cli.stopping import HardStop, saying
from harness.durability import Durability
from harness.monitor import TrialBar
from harness.scenario import Scenario

WIDTH = 80
"""Columns of a line."""


def run_scenario(
    scenario: Scenario,
    forms: Sequence[str],
    chosen: Sequence[interruptions.Interruption],
    durability: Durability | None,
    *,
    as_json: bool,
    **options: Any,
) -> None:
    """Run every form with every interruption; exit with 1 unless every trial was done exactly once."""
    good, kept = True, "nothing was kept"
    bar = TrialBar(len(forms) * len(chosen), Console(stderr=True), lines=0)
    with ExitStack() as stack:
        stack.callback(bar.stop)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(saying(lambda: kept))
        laboratory = stack.enter_context(lab.Lab(folder, **options))
        hard = None
        if laboratory.services.broker is None:
            hard = stack.enter_context(HardStop(folder, lambda: kept, bar.stop))
        for form in forms:
            for interruption in chosen:
                if hard is not None:
                    hard.expected = interruption.by == interruptions.SIGNALS["INT"]
                bar.begin(f"{form} {interruption.name}")
                record = laboratory.run(scenario, form, interruption, durability)
                good = good and record["verdict"] == "exactly once"
                kept = (
                    "the records above are complete; nothing else was kept"  # Ctrl-C may follow the next line
                )
                bar.tell(json.dumps(record) if as_json else line(record))
                bar.advance()
    sys.exit(0 if good else 1)


def line(record: dict[str, Any]) -> str:
    """Return a record in lines of at most 80 columns: the verdict and its figures."""
    trial = f"{record['scenario']:8} {record['pattern']:10} {record['interruption']:24} {record['verdict']}"
    if record.get("queue", "rq") != "rq":
        trial += f" on {record['queue']}"
    found = (
        f"executions {record['executions']:,}, items {record['items']:,}, lost {record['lost']:,}, "
        f"duplicated {record['duplicated']:,}, repeated {record['repeated']:,}"
    )
    return "\n".join([*_folded(trial, ""), *_folded(found, " " * 9)])


def _folded(text: str, indent: str) -> list[str]:
    """Return a text as lines; a text that fits is not changed."""
    line = indent + text
    return [line] if len(line) <= WIDTH else wrap(line, WIDTH, subsequent_indent=" " * 9)
