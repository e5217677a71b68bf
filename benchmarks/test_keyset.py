"""``records()`` costs about as much as a loop written by hand, at any size, and holds one page."""

from __future__ import annotations

import gc
import resource
import statistics
import tracemalloc
from collections.abc import Callable, Iterator
from time import process_time
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from benchmarks import parcels
from benchmarks.parcels import Parcel
from harness import records

ROWS = 100_000
PAGE = 100
ROUNDS = 9


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """Return a session of a SQLite file with ROWS rows; no transaction is open."""
    engine = sa.create_engine(parcels.database(tmp_path_factory.mktemp("keyset"), ROWS))
    with Session(engine) as session:
        yield session
    engine.dispose()


def by_hand(session: Session, rows: int) -> None:
    """Read *rows* rows in pages after the last id, with one select built once: the fastest way known."""
    after, last = sa.bindparam("after", type_=sa.Integer), 0
    page = sa.select(Parcel).where(Parcel.id <= rows, Parcel.id > after).order_by(Parcel.id).limit(PAGE)
    while True:
        found = session.scalars(page, {"after": last}).all()
        for parcel in found:
            last = parcel.id
        if len(found) < PAGE:
            return


def by_records(session: Session, rows: int) -> None:
    """Read *rows* rows with records()."""
    select = sa.select(Parcel).where(Parcel.id <= rows)
    for _ in records(session, select, cursor=None, batch_size=PAGE):
        pass


def cost(read: Callable[[Session, int], None], session: Session, rows: int) -> float:
    """Return the processor time of one reading, in us a row; it leaves no transaction."""
    start = process_time()
    read(session, rows)
    seconds = process_time() - start
    session.rollback()
    return seconds / rows * 1e6


def show(label: str, values: list[float], unit: str = "") -> float:
    """Print the median with its spread and return it."""
    low, median, high = statistics.quantiles(values, n=4)
    print(f"\n{label}: {median:.2f}{unit}, quartiles {low:.2f} to {high:.2f}, least {min(values):.2f}")
    return median


def test_records_against_a_loop_by_hand(
    benchmark: Any, capsys: pytest.CaptureFixture[str], session: Session
) -> None:
    """A row of records() takes at most 1.15 times as long as one of a loop by hand on the same session."""
    hand: list[float] = []
    ours: list[float] = []
    # The loop by hand runs before each round, so that both meet the same weather.
    benchmark.pedantic(
        lambda: ours.append(cost(by_records, session, ROWS)),
        setup=lambda: hand.append(cost(by_hand, session, ROWS)),
        rounds=ROUNDS,
    )
    with capsys.disabled():
        show("a row by hand", hand, " us")
        show("a row of records()", ours, " us")
        ratio = show("records() / by hand", [one / other for one, other in zip(ours, hand, strict=True)])
    benchmark.extra_info["ratio"] = ratio
    assert ratio <= 1.15


def test_a_row_costs_the_same_at_any_size(capsys: pytest.CaptureFixture[str], session: Session) -> None:
    """A row of 100,000 costs at most 1.15 times as much as a row of 1,000."""
    few, many = [], []
    for _ in range(ROUNDS):
        few.append(statistics.median(cost(by_records, session, ROWS // 100) for _ in range(20)))
        many.append(cost(by_records, session, ROWS))
    with capsys.disabled():
        show(f"a row of {ROWS // 100:,}", few, " us")
        show(f"a row of {ROWS:,}", many, " us")
        ratio = show("many / few", [one / other for one, other in zip(many, few, strict=True)])
    assert ratio <= 1.15


def test_memory_does_not_grow(capsys: pytest.CaptureFixture[str], session: Session) -> None:
    """Reading 100,000 rows takes about the memory of reading 10,000, and resident memory does not grow.

    Not of 1,000: it takes some 50 pages until the garbage collector has found its pace, which is also why the
    peaks differ by a tenth or so. Rows that were kept would make it ten times as much.
    """
    few = ROWS // 10
    by_records(session, few)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    by_records(session, ROWS)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident) / 1024
    peaks = []
    tracemalloc.start()
    # The first reading fills caches.
    for rows in (few, few, ROWS):
        gc.collect()
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        by_records(session, rows)
        peaks.append((tracemalloc.get_traced_memory()[1] - before) / 1024)
    tracemalloc.stop()
    with capsys.disabled():
        print(f"\npeak of reading {few:,} and {ROWS:,} rows: {peaks[1]:.0f} and {peaks[2]:.0f} kB")
        print(f"resident memory grew by {grown:.1f} MB between the two")
    assert peaks[2] <= 1.25 * peaks[1]
    assert grown <= 2
