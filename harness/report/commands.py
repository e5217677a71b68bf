"""Commands that repeat a run."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.report.records import Environment, Run


def command(run: Run, environment: Environment) -> str:
    """Return the shell command that repeats a run."""
    options = [
        ("--form", run.pattern, ""),
        ("--interrupt", run.interruption, "none"),
        ("--durability", run.durability, "none"),
        ("--queue", run.queue, "rq"),
        ("--broker", run.broker, "fakeredis" if run.queue == "rq" else "redis"),
        ("--database", run.database, "sqlite"),
        ("--size", environment.size, "quick"),
        ("--pace", f"{environment.pace_s:g}", "0"),
    ]
    words = ["harness", "run", run.module or f"scenarios.{run.scenario}"]
    for name, value, default in options:
        if value != default:
            words += [name, value]
    return shlex.join(words)
