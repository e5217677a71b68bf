"""``guard=True`` with several items at a time, where rows leave the select when they are done."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from harness import InlineRun, IterationJob, batches, ranges, records, throttle, with_transaction
from harness.durability import Durability
from harness.errors import CollectionChanged
from harness.stores.sql import SqlStore
from tests.examples import examples
from tests.jobs import Dead

KINDS = ("records", "batches", "ranges")


class Base(DeclarativeBase):
    """Base of all tables."""


class Row(Base):
    """Rows to do; one that is done is in the select no longer."""

    __tablename__ = "rows"

    id: Mapped[int] = mapped_column(primary_key=True)
    times: Mapped[int] = mapped_column(default=0)


@dataclass
class Plan:
    """What happens in a story.

    :ivar fails: for each item, by the id of its first row, what its attempts raise, the first one first.
    :ivar leaves: whether rows leave the select. :ivar size: rows in a batch. :ivar guard: whether it looks for changes.
    :ivar others: set when an item is at work that does not fail; those that fail wait for it.
    """

    kind: str = "records"
    fails: dict[int, list[BaseException]] = field(default_factory=dict)
    leaves: bool = True
    size: int = 2
    guard: bool = True
    others: threading.Event = field(default_factory=threading.Event)


class Does(IterationJob, abstract=True):
    """Does rows in threads, each item in a session of its own."""

    engine: sa.Engine
    plan: Plan

    @classmethod
    def progress_store(cls) -> SqlStore:
        """Keep progress where the rows are."""
        return SqlStore(cls.engine)

    def new_session(self) -> Session:
        """Open a session of an item."""
        return Session(self.engine)

    @contextmanager
    def around_iterate(self) -> Iterator[None]:
        """Hold a session that reads."""
        with Session(self.engine) as self.session:
            yield

    def build_enumerator(self, *, cursor: Any) -> Any:
        """Go through the rows that are not done."""
        select = sa.select(Row.id).where(Row.times == 0) if self.plan.leaves else sa.select(Row.id)
        reads: Any = {"records": records, "batches": batches, "ranges": ranges}[self.plan.kind]
        found = reads(
            self.session,
            select,
            columns=Row.id,
            cursor=cursor,
            guard=self.plan.guard,
            batch_size=self.plan.size,
        )
        return throttle(found, on=lambda: False, backoff=1)

    def each_iteration(self, item: Any) -> None:
        """Do an item, or raise what is planned."""
        with self.transaction() as session:
            ids = [item] if isinstance(item, int) else item
            if isinstance(item, sa.Select):
                ids = list(session.scalars(item))
            planned = self.plan.fails.get(ids[0])
            if planned:
                assert self.plan.others.wait(5)
                raise planned.pop(0)
            self.plan.others.set()
            session.execute(sa.update(Row).where(Row.id.in_(ids)).values(times=Row.times + 1))


class Scene:
    """A database with rows, and a job on them.

    :param durability: that of the job. :param concurrency: its number of items at a time in each execution, in turn.
    """

    def __init__(
        self, folder: str, rows: int, plan: Plan, durability: Durability, concurrency: list[int]
    ) -> None:
        self.engine = sa.create_engine(f"sqlite:///{folder}/rows.db")
        Base.metadata.create_all(self.engine)
        SqlStore(self.engine).create()
        with Session(self.engine) as session:
            session.add_all(Row() for _ in range(rows))
            session.commit()
        self.job: Any = type(
            "Job",
            (Does,),
            {"engine": self.engine, "plan": plan, "durability": durability, "concurrency": concurrency[0]},
        )
        self._concurrency = concurrency

    def run(self) -> None:
        """Run executions until the job is done; crashes and errors are followed by the next one."""
        for number in range(100):
            self.job.concurrency = self._concurrency[number % len(self._concurrency)]
            try:
                if InlineRun(self.job, job_id="guarded").execute().outcome == "completed":
                    return
            except (RuntimeError, Dead):
                continue
        raise AssertionError("it does not end")

    @property
    def times(self) -> list[int]:
        """How often each row was done."""
        with Session(self.engine) as session:
            return list(session.scalars(sa.select(Row.times).order_by(Row.id)))


attempts = st.lists(st.sampled_from([RuntimeError, Dead]), min_size=1, max_size=2)


@pytest.mark.parametrize("kind", KINDS)
@given(
    rows=st.integers(1, 14), size=st.integers(1, 4), leaves=st.booleans(),
    guard=st.booleans(), concurrency=st.lists(st.sampled_from([2, 3, 10]), min_size=1, max_size=3),
    fails=st.dictionaries(st.integers(1, 14), attempts, max_size=4),
)  # fmt: skip
@examples(25)
def test_a_guard_knows_what_is_done_beyond_the_cursor(  # noqa: PLR0917 - what a story is made of
    kind: str,
    rows: int,
    size: int,
    leaves: bool,
    guard: bool,
    concurrency: list[int],
    fails: dict[int, list[Any]],
) -> None:
    """Whichever items crash or fail, each row is done exactly once, also if it then leaves the select."""
    plan = Plan(
        kind, {number: [each() for each in errors] for number, errors in fails.items()}, leaves, size, guard
    )
    plan.others.set()
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(folder, rows, plan, with_transaction(), concurrency)
        scene.run()
        assert scene.times == [1] * rows
        scene.engine.dispose()


def begun(folder: Path, kind: str) -> Scene:
    """Return a scene whose first item has failed once, while others were done beyond it."""
    scene = Scene(str(folder), 9, Plan(kind, {1: [RuntimeError(), RuntimeError()]}), with_transaction(), [3])
    with suppress(RuntimeError):
        InlineRun(scene.job, job_id="guarded").execute()
    return scene


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", ["comes", "goes", "goes from the items at work"])
def test_a_guard_still_finds_a_change(tmp_path: Path, kind: str, change: str) -> None:
    """A row that comes, or goes without having been done, stops the job with a named error."""
    scene = begun(tmp_path, kind)
    done = scene.times
    assert done[0] == 0
    assert 0 < sum(done) < 9
    statement: Any = {
        "comes": sa.insert(Row).values(id=20),
        "goes": sa.delete(Row).where(Row.id == 9),
        "goes from the items at work": sa.delete(Row).where(Row.id == 1),
    }[change]
    with Session(scene.engine) as session:
        session.execute(statement)
        session.commit()
    with pytest.raises(CollectionChanged):
        scene.run()
    scene.engine.dispose()
