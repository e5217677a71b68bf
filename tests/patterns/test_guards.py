"""With a guard, an enumerator stops where what it iterates has changed, rather than skip in silence."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from harness import InlineRun, IterationJob, csv_batches, csv_rows, items
from harness.errors import CollectionChanged, CursorError
from harness.stops import Every
from tests.enumerator_cases import MOST, Parcel, filled
from tests.greenlets import EVERY_KIND, as_asked, batches, call, ranges, records, session_on

GONE = date(2100, 1, 1)
by_place = [Parcel.place, Parcel.id]
reads = pytest.mark.parametrize("read", [records, batches, ranges])


@pytest.fixture(scope="module", params=EVERY_KIND)
def tables(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """Return a session of tables with rows, to which nothing is committed."""
    with (
        filled(request, tmp_path_factory.mktemp("guards")) as world,
        session_on(as_asked(world.engine, request)) as session,
    ):
        yield session


@pytest.fixture
def session(tables: Session) -> Iterator[Session]:
    """Return it with a transaction that is rolled back."""
    call(tables, tables.connection)
    yield tables
    call(tables, tables.rollback)


def open_parcels() -> sa.Select[Any]:
    """Select those that are not gone."""
    return sa.select(Parcel).where(Parcel.day < GONE)


def guarded(read: Callable[..., Any], session: Session, cursor: Any) -> Any:
    """Read them by their place, one in a page."""
    return read(session, open_parcels(), cursor=cursor, columns=by_place, batch_size=1, guard=True)


def insert(place: int) -> Callable[[Session], object]:
    """Add a parcel at a place."""

    def change(session: Session) -> None:
        number = 100 + place
        session.add(
            Parcel(
                id=number,
                place=place,
                code=str(number),
                token=uuid.uuid4(),
                day=date(2026, 1, 1),
                sent=datetime(2000, 1, 1, tzinfo=UTC),
                seen=datetime(2000, 1, 1),  # noqa: DTZ001 - a column without a zone
            )
        )
        session.flush()

    return change


def delete(*places: int) -> Callable[[Session], object]:
    """Delete the parcels at some places."""
    return lambda session: session.execute(sa.delete(Parcel).where(Parcel.place.in_(places)))


def move(place: int, to: int) -> Callable[[Session], object]:
    """Move a parcel."""
    update = sa.update(Parcel).where(Parcel.place == place).values(place=to)
    return lambda session: session.execute(update)


def leave(*places: int) -> Callable[[Session], object]:
    """Have parcels leave the select, as what is done leaves that of what is to do."""
    return lambda session: session.execute(sa.update(Parcel).where(Parcel.place.in_(places)).values(day=GONE))


def both(*changes: Callable[[Session], object]) -> Callable[[Session], object]:
    """Make several changes."""
    return lambda session: [change(session) for change in changes]


NO_CHANGES = {
    "nothing": lambda _: None,
    "done-rows-leave-the-select": leave(0, 1, 2, 3, 4),
    "done-rows-are-deleted": delete(0, 2),
    "the-cursor's-row-is-deleted": delete(4),
    "a-row-comes-behind": insert(-1),
    "rows-move-behind": move(1, -5),
    "a-row-moves-but-not-past-another": move(7, 7),
}
CHANGES = {
    "a-row-moves-behind": (move(7, -1), "after the cursor was 4, now it is 3"),
    "a-row-moves-ahead": (move(1, 50), "after the cursor was 4, now it is 5"),
    "a-row-comes": (insert(60), "after the cursor was 4, now it is 5"),
    "a-row-goes": (delete(6), "after the cursor was 4, now it is 3"),
    "a-row-leaves-the-select-too-soon": (leave(6), "after the cursor was 4, now it is 3"),
    "all-go": (delete(5, 6, 7, 8), "after the cursor was 4, now it is 0"),
    "one-moves-behind-and-one-comes": (both(move(6, -1), insert(60)), r"the last item was \(8, 2\), now"),
    "the-last-one-moves": (move(8, 90), r"the last item was \(8, 2\), now it is \(90, 2\)"),
}


@reads
@pytest.mark.parametrize("change", NO_CHANGES.values(), ids=NO_CHANGES)
def test_what_does_not_change_the_rows_ahead_passes(
    session: Session, read: Any, change: Callable[[Session], object]
) -> None:
    """Any change of rows that are done passes, even if no work is left."""
    cursors = [cursor for _, cursor in guarded(read, session, None)]
    assert [cursor["at"][0] for cursor in cursors] == list(range(MOST))
    change(session)
    assert [cursor for _, cursor in guarded(read, session, cursors[4])] == cursors[5:]
    leave(*range(MOST))(session)
    assert list(guarded(read, session, cursors[-1])) == []


@reads
@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_a_change_of_the_rows_ahead_stops_a_resumed_job(
    session: Session, read: Any, change: Callable[[Session], object], message: str
) -> None:
    """The job stops before its next item, and the error says what was and what is."""
    cursors = [cursor for _, cursor in guarded(read, session, None)]
    change(session)
    pairs = iter(guarded(read, session, cursors[4]))
    with pytest.raises(CollectionChanged, match=rf"{read.__name__}\(\) reads has changed .* {message}"):
        next(pairs)


@reads
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (delete(7), "the number of items was 9, now it is 8"),
        (insert(60), "the number of items was 9, now it is 10"),
        (both(move(6, -1), insert(60)), r"the last item was \(8, 2\), now it is \(60, 160\)"),
    ],
)
def test_a_change_while_it_runs_is_noticed_at_the_end(
    session: Session, read: Any, change: Callable[[Session], object], message: str
) -> None:
    """The change is detected before the job counts as completed, without extra cost."""
    pairs = iter(guarded(read, session, None))
    for _ in range(5):
        next(pairs)
    change(session)
    with pytest.raises(CollectionChanged, match=message):
        list(pairs)


@reads
def test_what_shrinks_as_it_is_worked_on_passes(session: Session, read: Any) -> None:
    """Each row leaves the select once it is done, in executions of one item each."""
    cursor, seen = None, []
    while True:
        enumerator = guarded(read, session, cursor)
        # Of the beginning, not of what has not left yet.
        assert enumerator.size == MOST
        pair = next(iter(enumerator), None)
        if pair is None:
            break
        cursor = pair[1]
        seen.append(cursor["at"][0])
        leave(cursor["at"][0])(session)
    assert seen == list(range(MOST))


def test_what_was_empty_stays_empty(session: Session) -> None:
    """Nothing is no change."""
    leave(*range(MOST))(session)
    assert list(guarded(records, session, None)) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda numbers: numbers.append(3),
        lambda numbers: numbers.pop(),
        lambda numbers: numbers.reverse(),
        lambda numbers: numbers.__setitem__(0, 1.0),
    ],
    ids=["longer", "shorter", "another-order", "another-type"],
)
def test_a_sequence_that_changed_is_noticed(change: Callable[[list[Any]], None]) -> None:
    """A changed sequence is detected when an execution begins, and during one at its end or where it gets shorter."""
    numbers: list[Any] = [1, 2, {"b": 1, "a": 2}]
    ((_, cursor),) = list(items(numbers, cursor=None, guard=True))[:1]
    assert len(list(items((1, 2, {"a": 2, "b": 1}), cursor=cursor, guard=True))) == 2
    running = iter(items(numbers, cursor=None, guard=True))
    next(running)
    change(numbers)
    with pytest.raises(
        CollectionChanged, match=r"the sequence of items\(\) has changed since the job started"
    ):
        next(iter(items(numbers, cursor=cursor, guard=True)))
    with pytest.raises(CollectionChanged, match=r"the sequence of items\(\)"):
        list(running)


def test_items_without_a_json_form_cannot_be_guarded() -> None:
    """The error names the item."""
    assert len(list(items([1, object()], cursor=None))) == 2
    with pytest.raises(CursorError, match=r"items\(\)\[1\]: builtins.object would not come back equal"):
        list(items([1, object()], cursor=None, guard=True))


@pytest.mark.parametrize("read", [csv_rows, partial(csv_batches, batch_size=1)], ids=["rows", "batches"])
@pytest.mark.parametrize("opened", [False, True])
def test_a_file_that_changed_is_noticed(tmp_path: Path, read: Any, opened: bool) -> None:
    """A change anywhere in the file, even behind the cursor, is detected at the start and the end of an execution."""
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1,2\n3,4\n")

    def source() -> Any:
        return io.StringIO(path.read_text()) if opened else path

    cursor = next(iter(read(source(), cursor=None, guard=True)))[1]
    assert len(list(read(source(), cursor=cursor, guard=True))) == 1
    same = source()
    running = iter(read(same, cursor=None, guard=True))
    next(running)
    for text in ("a,b\n0,2\n3,4\n", "a,b\n1,2\n3,4\n5,6\n", "a,b\n1,2\n", ""):
        path.write_text(text)
        with pytest.raises(CollectionChanged, match="has changed since the job started"):
            list(read(source(), cursor=cursor, guard=True))
    if opened:
        same.seek(0)
        same.write("x")
        same.seek(0, io.SEEK_END)
    with pytest.raises(CollectionChanged, match="has changed since the job started"):
        list(running)


@pytest.mark.parametrize(
    "make",
    [
        lambda _, **options: items([1, 2], **options),
        lambda _, **options: csv_rows(io.StringIO("a\n1\n2\n"), **options),
        lambda session, **options: records(session, Parcel, **options),
        lambda session, **options: ranges(session, Parcel, **options),
    ],
)
def test_a_guard_cannot_be_added_or_left_out_on_the_way(session: Session, make: Any) -> None:
    """A cursor of the other kind is refused, and so is one of another enumerator; a job may start in the middle."""
    plain = next(iter(make(session, cursor=None)))[1]
    with_guard = next(iter(make(session, cursor=None, guard=True)))[1]
    assert with_guard["at"] == plain
    with pytest.raises(
        CursorError, match=r"with guard=True resumes from None .* without a guard must end without"
    ):
        make(session, cursor=plain, guard=True)
    with pytest.raises(CursorError, match=r"without a guard resumes from .* pass guard=True"):
        make(session, cursor=with_guard)
    started = list(make(session, cursor={"at": plain, "guard": None}, guard=True))
    assert started == list(make(session, cursor=None, guard=True))[1:]
    with pytest.raises((CursorError, CollectionChanged), match=r"resumes from its own cursor|has changed"):
        list(make(session, cursor={"at": plain, "guard": {"total": 1}}, guard=True))


class Numbers(IterationJob):
    """Goes through a list that a test may change."""

    of: list[int] = []  # noqa: RUF012 - replaced by the test

    def build_enumerator(self, *, cursor: Any) -> Any:
        """Read it with a guard."""
        return items(self.of, cursor=cursor, guard=True)

    def each_iteration(self, item: int) -> None:
        """Do nothing."""


def test_a_job_over_what_has_changed_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job over a changed collection fails and is not resumed, because running again would not help."""
    monkeypatch.setattr(Numbers, "of", [1, 2, 3])
    inline = InlineRun(Numbers, stops=[Every(1)])
    assert inline.execute().outcome == "interrupted"
    Numbers.of.insert(0, 0)
    with pytest.raises(CollectionChanged):
        inline.drain()
