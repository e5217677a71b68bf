"""Explore jobs in one process and in two: ``python -m tests.explore.both_ways MODULE:NAME``.

Prints one JSON object for each job. It has a Python of its own, as a worker of pytest-xdist has threads, and a process
with threads does not fork.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import tempfile
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

from harness.explore import Explorer
from harness.job import find
from tests.planted import shop


def children() -> set[str]:
    """Return the process ids of the children of this process."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def explored(job: Any, processes: int, sample: int | None) -> dict[str, Any]:
    """Explore a job on a new database; return its record, and the most children at a time."""
    most = 0

    def look(*_: object) -> None:
        nonlocal most
        most = max(most, len(children()))

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        shop.open_shop(f"{folder}/shop.db")
        try:
            # A connection of the application's own, if one is asked for: a fork would copy it.
            opened = closing(sqlite3.connect("shop.db")) if "BESIDE" in os.environ else nullcontext()
            with opened, Explorer(job, processes=processes, sample=sample, progress=look) as explorer:
                record = explorer.run().record
        finally:
            shop.close_shop()
            os.chdir("/")
    del record["seconds"]
    return {"record": record, "children": most}


def main() -> None:
    """Explore each job both ways."""
    sample = int(os.environ["SAMPLE"])
    for name in sys.argv[1:]:
        one, two = (explored(find(name), processes, sample) for processes in (1, 2))
        sys.stdout.write(json.dumps({"job": name, "one": one, "two": two}) + "\n")


if __name__ == "__main__":
    main()
