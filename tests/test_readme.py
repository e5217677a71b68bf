"""What the README shows, works."""

from __future__ import annotations

import re
import types
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue

import harness
from harness import InlineRun
from harness.stops import Every

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PRICED: list[str] = []


def module(block: str) -> dict[str, Any]:
    """Run a block as a module of somebody's shop."""
    shop = types.ModuleType("shop")
    names = vars(shop)
    names.update({name: getattr(harness, name) for name in harness.__all__})
    names.update(check=PRICED.append, rows_of=lambda import_id: ["a", "b", "c"], price=PRICED.append)
    exec(compile(block, "README.md", "exec"), names)  # noqa: S102 - the README's own code
    return names


@pytest.mark.parametrize(("index", "done"), [(0, [17, "a", "b", "c"]), (1, ["a", "b", "c"])])
def test_both_patterns_work_as_shown(index: int, done: list[object]) -> None:
    """Interrupted after every item, each does all of them once."""
    PRICED.clear()
    ended = InlineRun(module(BLOCKS[index])["Import"], 17, stops=[Every(1)]).drain()
    assert (PRICED, ended[-1].outcome, len(ended)) == (done, "completed", 4)


def test_a_job_is_enqueued_as_shown(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a queue with RQ's JSON serializer."""
    names = {**module(BLOCKS[1]), "Queue": Queue, "Redis": lambda: redis}
    exec(compile(BLOCKS[2], "README.md", "exec"), names)  # noqa: S102 - the README's own code
    assert names["queue"].jobs[0].description == "Import(17)"


def test_every_file_that_is_mentioned_exists() -> None:
    """A link that leads nowhere helps nobody."""
    targets = re.findall(r"\]\(([\w./-]+)\)", README)
    assert len(targets) > 10
    assert [target for target in targets if not (Path(__file__).parents[1] / target).exists()] == []
