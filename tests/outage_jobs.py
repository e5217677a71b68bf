"""A toy job whose work does not use Redis; only its progress and its worker do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness import Enumerator, IterationJob, events, every, items, subscribe


class Steady(IterationJob):
    """Notes numbers in a file; each waits for a byte in a pipe."""

    durability = every(items=1)
    max_unsaved = 0

    def build_enumerator(self, folder: str, numbers: int, *, cursor: Any) -> Enumerator[int]:
        """Go through the numbers, and say when a save fails."""

        def hear(event: object) -> None:
            if isinstance(event, events.SaveFailed):
                say(folder, "!")

        subscribe(hear).__enter__()  # for as long as the process lives
        return items(range(numbers), cursor=cursor)

    def each_iteration(self, item: int, folder: str, numbers: int) -> None:
        """Do one number."""
        with (Path(folder) / "go").open("rb", buffering=0) as pipe:
            assert pipe.read(1) == b"g"
        with (Path(folder) / "done").open("a") as done:
            done.write(f"{item}\n")
        say(folder, str(item))


def say(folder: str, what: str) -> None:
    """Report an event to the test."""
    with (Path(folder) / "said").open("w") as said:
        said.write(f"{what}\n")
