"""Changes of data and code between the executions of a job, and the rule that must hold after them.

This module plays the stories of :mod:`tests.stories` and checks their results.

**The rule.** A row that exists unchanged from the first to the last execution is done exactly once. Otherwise the job
stops with a :class:`~harness.HarnessError`, keeps its progress, and runs to its end once the data and the code are
restored. A job never completes with such a row not done.

**After a crash** a durability allows these rows to be done once more, and no others:

* ``on_stop()``: the rows that the crashed execution did.
* ``every(items=n)``: the rows it did since the last save: fewer than n items, and the one in progress.
* ``every(seconds=s)``: the rows it did in the last s seconds, and the item in progress.
* ``with_transaction()``, with any number of items: none.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from harness import (
    InlineRun,
    IterationJob,
    nested,
)
from harness.errors import HarnessError
from harness.job import Job
from harness.stores.memory import MemoryStore
from harness.stores.sql import SqlStore
from tests.databases import empty_database
from tests.jobs import Dead
from tests.scene import METADATA, Scene
from tests.stories import (
    FUNCTION,
    Story,
    World,
)


class Changing(IterationJob):
    """Iterates what its scene says."""

    scene: ClassVar[Scene]
    session: Session

    @contextmanager
    def around_iterate(self) -> Iterator[None]:
        """Hold a session."""
        with Session(self.scene.engine) as self.session:
            yield

    def build_enumerator(self, *, cursor: Any) -> Any:
        """Iterate what there is."""
        return self.found(cursor)

    def found(self, cursor: Any, keep: Any = None) -> Any:
        """Return rows, or rows within rows.

        :param keep: as of :meth:`Scene.enumerator`, of the outermost rows.
        """
        scene, session = self.scene, self.session
        kind, inner = scene.world.code.kind, scene.story.inner
        if inner is None:
            return scene.enumerator(session, kind, None, cursor, keep)

        def within(item: Any, cursor: Any) -> Any:
            scene.parents = scene.ids(session, kind, item, None)
            return scene.enumerator(session, inner, scene.parents, cursor)

        outer = lambda cursor: scene.enumerator(session, kind, None, cursor, keep)  # noqa: E731
        return nested([outer, within], cursor=cursor)

    def on_shutdown(self) -> None:
        """Crash, if the plan says so."""
        if self.scene.plan == "crash at the end":
            raise Dead

    def each_iteration(self, item: Any) -> None:
        """Do the rows of an item."""
        scene = self.scene
        inner = scene.story.inner
        kind = inner or scene.world.code.kind
        with self.transaction() as session:
            ids = scene.ids(session, kind, item, scene.parents if inner else None)
            batched = kind in {"batches", "csv_batches"} and not inner and scene.story.code.shared != FUNCTION
            scene.do(self, ids, len(ids) if batched else 1)


@dataclass
class Place:
    """Location of the data of the stories."""

    engine: sa.Engine
    folder: Path

    def play(self, story: Story) -> None:
        """Play a story."""
        play(story, self.engine, self.folder)


@pytest.fixture(scope="module", params=["sqlite"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Yield a database and a folder, for all stories of a module."""
    folder = tmp_path_factory.mktemp("changes")
    with empty_database(request, folder) as engine:
        if request.param == "sqlite":
            # No power cut happens here: data that a process has written survives its crash.
            sa.event.listen(engine, "connect", lambda raw, _: raw.executescript(QUICK))
        METADATA.create_all(engine)
        logging.disable(logging.CRITICAL)  # the log of thousands of jobs is of no use
        yield Place(engine, folder)
        logging.disable(logging.NOTSET)


QUICK = "PRAGMA synchronous=OFF; PRAGMA journal_mode=MEMORY"


def inline(scene: Scene, job_class: type[Job]) -> InlineRun:
    """Return a run of a job that asks a scene."""
    store = SqlStore(scene.engine) if scene.transactional else MemoryStore()
    return InlineRun(
        job_class, job_id="changing", store=store, stops=[scene.stops], durability=scene.story.durability,
        clock=scene.wait,
    )  # fmt: skip


MOST_EXECUTIONS = 10
"""Number of executions that is more than an undisturbed job needs."""


def play(story: Story, engine: sa.Engine, folder: Path) -> None:
    """Play a story of one job to its end, and judge it."""
    scene = Changing.scene = Scene(story, engine, folder)
    run = inline(scene, Changing)
    play_on(scene, run)


def play_on(scene: Scene, run: InlineRun) -> None:
    """Play a story with a run."""
    before: list[tuple[World, set[int]]] = []
    undisturbed: list[tuple[str, int, list[Any]]] = [("", 0, [])] * MOST_EXECUTIONS
    for plan, at, changes in [*scene.story.executions, *undisturbed]:
        world = scene.world
        try:
            ended = scene.run(run, plan, at)
        except HarnessError:
            assert run.progress is not None, scene.report("the progress is gone")
            if not insist(scene, run):
                go_back(scene, run, before)
            break
        if ended == "completed":
            break
        before.append((world, set(scene.marked)))
        scene.change(changes)
        if changes:
            scene.tell(f"changed: {changes}")
    else:
        raise AssertionError(scene.report("does not end"))
    scene.judge()


def insist(scene: Scene, run: InlineRun) -> bool:
    """Run a job again that refused to go on, without restoring anything; return whether it now runs to its end.

    Queues retry, so a refusal that holds only once does not count as one.
    """
    scene.tell("once more")
    try:
        return any(scene.run(run) == "completed" for _ in range(MOST_EXECUTIONS))
    except HarnessError:
        return False


def go_back(scene: Scene, run: InlineRun, before: Sequence[tuple[World, set[int]]]) -> None:
    """Restore the data and the code that an earlier execution found, and run the job to its end.

    An execution may end before it reaches the change, so the right state need not be the latest one.

    :param before: data and code that each execution found, with the rows that were marked.
    """
    for world, marked in reversed(before):
        scene.world, scene.marked, scene.put_back = world, marked, True
        scene.tell("put back")
        if insist(scene, run):
            return
    raise AssertionError(scene.report("cannot go on with the data and the code put back"))
