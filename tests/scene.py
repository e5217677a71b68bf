"""Scene of a story: the rows, files and code that change between executions, and what must hold after them."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from harness import (
    InlineRun,
    batches,
    csv_batches,
    csv_rows,
    items,
    once,
    ranges,
    records,
    throttle,
    times,
)
from harness.errors import HarnessError
from harness.stores.sql import progress_tables
from tests.jobs import Dead
from tests.stories import (
    DATA,
    FILES,
    GROUPED,
    INNER,
    LISTS,
    NUMBERED,
    TABLES,
    TICK,
    Code,
    Row,
    Story,
    World,
    changed_code,
)

METADATA = sa.MetaData()
ROWS = sa.Table(
    "changing_rows",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("parent", sa.Integer, nullable=False),
    sa.Column("rank", sa.Integer, nullable=False),
)
DONE = sa.Table("done", METADATA, sa.Column("id", sa.Integer, nullable=False))
progress_tables(METADATA)
OUTERMOST = -1
"""Parent id of rows that have no parent."""
CHILDREN = 100
"""Ids of a row's children begin at its own id plus one, times this."""


class Scene:
    """A story while it is played; the job asks it for everything."""

    def __init__(self, story: Story, engine: sa.Engine, folder: Path) -> None:
        self.story, self.engine, self._folder = story, engine, folder
        kind, count = story.code.kind, 1 if story.code.kind == "once" else len(story.rows)
        step = 1 if kind in NUMBERED else 10
        rows = tuple(Row(step * n, rank) for n, rank in enumerate(story.rows[:count]))
        self.world = World(rows, {}, story.code)
        if story.inner is not None:
            for row in rows:
                self._give_children(row.id)
        self.changed: set[int] = set()
        """Ids of rows that a story changed."""
        self.first = self.world
        self.log: list[tuple[list[int], int]] = []
        """The rows done together, and how many items they count for."""
        self.allowed: Counter[int] = Counter()
        """Number of times a row may be done beyond the first."""
        self.marked: set[int] = set()
        """Rows that the job has marked done, so that they have left the select."""
        self.put_back = False
        self.told: list[str] = []
        """Events so far, for error messages."""
        self.plan, self.at, self.calls, self.now = "", 0, 0, 0.0
        self.cut: tuple[list[int], int] | None = None
        """What was done just before a crash."""
        self.parents: list[int] = []
        self.transactional = story.durability.transactional
        with engine.begin() as connection:
            for table in METADATA.tables.values() if self.transactional else (ROWS,):
                connection.execute(sa.delete(table))

    # The data.

    def _give_children(self, parent: int) -> None:
        inner, count = self.story.inner, 1 if self.story.inner == "once" else self.story.children
        step = 1 if inner in NUMBERED else 10
        base = (parent + 1) * CHILDREN
        self.world.children[parent] = tuple(Row(base + step * n, n % 2) for n in range(count))

    def change(self, changes: Sequence[tuple[str, int, int]]) -> None:
        """Change the data and the code."""
        self.world = replace(self.world, children=dict(self.world.children))
        for name, a, b in changes:
            if name in DATA:
                kind, rows = self.world.code.kind, list(self.world.rows)
                before = {row.id for row in rows}
                self._change_rows(rows, kind, (name, a, b), 0)
                self.world = replace(self.world, rows=tuple(rows))
                for row in rows:
                    if row.id not in before and self.story.inner is not None:
                        self._give_children(row.id)
            elif name in INNER:
                if self.world.children and self.story.inner:
                    parent = sorted(self.world.children)[b % len(self.world.children)]
                    rows = list(self.world.children[parent])
                    base = (parent + 1) * CHILDREN
                    self._change_rows(rows, self.story.inner, (name.removeprefix("inner "), a, b), base)
                    self.world.children[parent] = tuple(rows)
            else:
                self.world = replace(self.world, code=changed_code(self.world.code, name, a))

    def _change_rows(self, rows: list[Row], kind: str, change: tuple[str, int, int], base: int) -> None:
        name, a, b = change
        if kind == "once":
            return
        if kind == "times":
            if name == "insert":
                rows.append(Row(base + len(rows)))
            elif name == "delete" and rows:
                self.changed.add(rows.pop().id)
            return
        # Of a file, the row at the cursor proves that it is the same one. That this row was moved, and others removed
        # before it, only a guard notices: the documented limit.
        in_place = kind in FILES and not self.world.code.guard
        if name == "insert":
            number = base + 10 * a + b
            came_back = in_place and number in self.changed
            if not came_back and all(row.id != number for row in rows):
                self.changed.add(number)
                rows.insert(a % (len(rows) + 1), Row(number, b % 3))
            return
        if not rows or (in_place and name == "move"):
            return
        row = rows[a % len(rows)]
        if name == "note":
            rows[a % len(rows)] = replace(row, note="bcdef"[b % 5] * (1 + b % 2))
            return
        rows.remove(row)
        self.changed.add(row.id)
        if name == "rerank":
            rows.insert(a % (len(rows) + 1), replace(row, rank=b % 4))
        elif name == "leave or enter":
            rows.insert(a % (len(rows) + 1), replace(row, active=not row.active))
        elif name == "move":
            rows.insert(b % (len(rows) + 1), row)

    def visible(self, parents: Sequence[int] | None) -> list[Row]:
        """Return the rows that the select of the job finds, in the order of the sequence."""
        if parents is None:
            rows: Sequence[Row] = self.world.rows
        else:
            rows = [row for parent in parents for row in self.world.children.get(parent, ())]
        return [row for row in rows if row.active and row.id not in self.marked]

    def write(self) -> None:
        """Put the data where the enumerators read it."""
        if self.story.marks and not self.put_back:
            self.marked = self._left()
        if {self.world.code.kind, self.story.inner} & TABLES:
            found = [(row, OUTERMOST) for row in self.visible(None)]
            found += [(row, parent) for parent in self.world.children for row in self.visible([parent])]
            with self.engine.begin() as connection:
                connection.execute(sa.delete(ROWS))
                values = [{"id": row.id, "parent": parent, "rank": row.rank} for row, parent in found]
                if values:
                    connection.execute(sa.insert(ROWS), values)

    def _left(self) -> set[int]:
        """Return the rows that have left the select because the job marked them done."""
        done = set(self.counts())
        if self.story.inner is None:
            return done if self.world.code.kind not in NUMBERED else set()
        if self.world.code.kind in NUMBERED:
            return set()
        children = self.world.children.items()
        return {parent for parent, rows in children if all(row.id in done for row in rows if row.active)}

    def csv(self, parents: Sequence[int] | None, keep: Any = None) -> str:
        """Return the text of a file."""
        code = self.world.code
        names = ["id", "rank", code.column_name]
        rows = [row for row in self.visible(parents) if keep is None or keep(row.id)]
        lines = [names, *([str(row.id), str(row.rank), row.note] for row in rows)]
        turn = code.column_order
        return "".join(",".join([*line[turn:], *line[:turn]]) + "\n" for line in lines)

    def path(self, parents: Sequence[int] | None) -> Path:
        """Return the path of a file."""
        return self._folder / f"rows {' '.join(map(str, parents or ()))}.csv"

    # What the job asks for.

    def enumerator(
        self, session: Session, kind: str, parents: Sequence[int] | None, cursor: Any, keep: Any = None
    ) -> Any:
        """Return an enumerator of a kind, over the outermost rows or over those within some of them.

        :param keep: says of an id whether its row belongs here; of a table, a condition.
        """
        code = self.world.code
        size = code.batch_size if parents is None else code.inner_batch_size
        known: dict[str, Any] = {"cursor": cursor, "guard": code.guard}
        if kind == "once":
            return once(cursor=cursor)
        if kind == "times":
            numbers = times(len(self.visible(parents)), cursor=cursor)
            return numbers if keep is None else [pair for pair in numbers if keep(pair[0])]
        if kind == "csv_rows of a file":
            return csv_rows(io.StringIO(self.csv(parents, keep), newline=""), **known)
        if kind in FILES:
            path = self.path(parents)
            path.write_text(self.csv(parents, keep), encoding="utf-8", newline="")
            return (
                csv_batches(path, batch_size=size, **known)
                if kind == "csv_batches"
                else csv_rows(path, **known)
            )
        if kind in LISTS:
            rows = [row for row in self.visible(parents) if keep is None or keep(row.id)]
            pairs: Any = items([f"{row.id} {row.note}" for row in rows], **known)
        else:
            within = [OUTERMOST] if parents is None else parents
            select = sa.select(ROWS.c.id).where(ROWS.c.parent.in_(within))
            if keep is not None:
                select = select.where(keep(ROWS.c.id))
            read: Any = {"batches": batches, "ranges": ranges}.get(kind, records)
            pairs = read(session, select, columns=columns_of(code), batch_size=size, **known)
        return throttle(pairs, on=self.throttles, backoff=0) if kind.startswith("throttled") else pairs

    def ids(self, session: Session, kind: str, item: Any, parents: Sequence[int] | None) -> list[int]:
        """Return the ids of the rows of an item."""
        if kind in NUMBERED:
            base = 0 if parents is None else (parents[0] + 1) * CHILDREN
            return [base + (item or 0)]
        if kind in LISTS:
            return [int(item.partition(" ")[0])]
        if kind == "ranges":
            if session.in_transaction():
                return list(session.scalars(item))
            with session.begin():
                return list(session.scalars(item))
        found = item if kind in GROUPED else [item]
        return [int(each["id"]) if kind in FILES else each for each in found]

    def throttles(self) -> bool:
        """Return True if the job has to wait."""
        if self.plan != "throttle" or self.calls < self.at:
            return False
        self.plan = ""
        return True

    def stops(self, _: object) -> bool:
        """Return True if the job has to stop here; raise if it has to crash."""
        if self.plan == "crash at checkpoint" and self.calls > self.at:
            raise Dead
        return self.plan == "stop" and self.calls > self.at

    def do(self, job: Any, ids: list[int], weight: int) -> None:
        """Do rows, or what the plan says."""
        here, self.calls = self.calls == self.at, self.calls + 1
        self.now += TICK
        if here and self.plan == "crash before":
            raise Dead
        if here and self.plan == "error":
            raise Planned
        if self.transactional:
            job.session.execute(sa.insert(DONE), [{"id": each} for each in ids])
        if here and self.plan == "crash after":
            self.cut = (ids, weight)
            raise Dead
        self.log.append((ids, weight))

    # What became of it.

    def counts(self) -> Counter[int]:
        """Return how often each row was done."""
        if not self.transactional:
            return Counter(each for ids, _ in self.log for each in ids)
        with self.engine.connect() as connection:
            return Counter(connection.scalars(sa.select(DONE.c.id)))

    def run(self, run: InlineRun, plan: str = "", at: int = 0) -> str:
        """Run one execution, and return how it ended.

        :raises HarnessError: if the job refuses to go on.
        """
        self.write()
        self.plan, self.at, self.calls, self.cut = plan, at, 0, None
        before, start = run.progress, len(self.log)
        try:
            ended = run.execute().outcome
        except Dead:
            if (
                self.cut is not None
            ):  # the last one that the crashed execution did, whatever others did after it
                self.log.append(self.cut)
            self._allow(run, before.done if before else 0, start)
            ended = "interrupted"
        except Planned:
            ended = "interrupted"
        except HarnessError as error:
            self.tell(f"{plan} at {at}: {type(error).__name__}: {error}")
            raise
        self.tell(f"{plan} at {at}: {ended}, did {[ids for ids, _ in self.log[start:]]}")
        return ended

    def _allow(self, run: InlineRun, before: int, start: int) -> None:
        """Allow the repetition of rows that a crash left unsaved, as far as the durability allows it."""
        if self.transactional:
            return
        progress = run.progress
        saved = (progress.done if progress else 0) - before
        unsaved = []
        for ids, weight in self.log[start:]:
            if saved <= 0:
                unsaved.append((ids, weight))
            saved -= weight
        durability = self.story.durability
        done = sum(weight for _, weight in unsaved[:-1])
        if durability.items is not None:
            assert done < durability.items, f"{durability} did not save: {unsaved}"
        elif durability.seconds != float("inf"):
            assert len(unsaved) * TICK <= durability.seconds, f"{durability} did not save: {unsaved}"
        self.allowed.update(each for ids, _ in unsaved for each in ids)

    def tell(self, what: str) -> None:
        """Record an event."""
        self.told.append(what)

    def stable(self) -> list[int]:
        """Return the ids of the rows that were there unchanged all the time."""
        first = self.first
        if self.story.inner is None:
            return [row.id for row in first.rows if row.id not in self.changed]
        return [
            row.id
            for parent in first.rows
            if parent.id not in self.changed
            for row in first.children[parent.id]
            if row.id not in self.changed
        ]

    def judge(self) -> None:
        """Fail unless each row that was there all the time was done as often as it must."""
        counts, stable = self.counts(), self.stable()
        lost = [each for each in stable if not counts[each]]
        twice = [each for each in stable if counts[each] > 1 + self.allowed[each]]
        if lost or twice:
            raise AssertionError(self.report(f"lost {lost}, done too often {twice}"))

    def report(self, what: str) -> str:
        """Return an error with all that happened before it."""
        return "\n  ".join([what, *self.told])

    def wait(self) -> float:
        """Return the time."""
        return self.now


class Planned(Exception):
    """An error that a story asks for."""


def columns_of(code: Code) -> list[Any] | None:
    """Return what the select is read by."""
    orders: dict[str, Any] = {
        "rank": [ROWS.c.rank, ROWS.c.id], "descending": [ROWS.c.id.desc()],
        "rank alone": [ROWS.c.rank.desc(), ROWS.c.id.desc()],
    }  # fmt: skip
    return orders.get(code.order)
