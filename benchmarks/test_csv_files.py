"""``csv_rows()`` costs little more than a loop written by hand, and a late resume costs nothing."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Callable
from pathlib import Path
from time import process_time

import pytest

from harness import csv_rows

ROWS = 300_000
ROUNDS = 9


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a file of ROWS rows, some with newlines and letters beyond ASCII."""
    path = tmp_path_factory.mktemp("csv") / "parcels.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "customer", "status", "street", "grams"])
        for n in range(ROWS):
            writer.writerow(
                [n, n % 97, "new" if n % 50 else "new\nagain", f"{'Straße' if n % 3 else 'Street'} {n}", n]
            )
    return path


def by_hand(path: Path) -> None:
    """Read lists with csv.reader: the fastest there is."""
    with path.open(newline="", encoding="utf-8") as file:
        for _ in csv.reader(file):
            pass


def by_dict_reader(path: Path) -> None:
    """Read dicts with csv.DictReader."""
    with path.open(newline="", encoding="utf-8") as file:
        for _ in csv.DictReader(file):
            pass


def lists(path: Path) -> None:
    """Read lists with csv_rows()."""
    for _ in csv_rows(path, cursor=None, header=False):
        pass


def dicts(path: Path) -> None:
    """Read dicts with csv_rows()."""
    for _ in csv_rows(path, cursor=None):
        pass


def guarded(path: Path) -> None:
    """Read dicts with csv_rows() and a guard."""
    for _ in csv_rows(path, cursor=None, guard=True):
        pass


def size(path: Path) -> None:
    """Count."""
    assert csv_rows(path, cursor=None).size == ROWS


def cost(read: Callable[[Path], None], path: Path) -> float:
    """Return the processor time of a row in ns."""
    start = process_time()
    read(path)
    return (process_time() - start) / ROWS * 1e9


def test_a_row_against_a_row_by_hand(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    """A dict of csv_rows() takes no longer than one of csv.DictReader, with its cursor."""
    reads = (by_hand, lists, by_dict_reader, dicts, guarded, size)
    costs = [[cost(read, path) for read in reads] for _ in range(ROUNDS)]
    with capsys.disabled():
        for read, values in zip(reads, zip(*costs, strict=True), strict=True):
            low, median, high = statistics.quantiles(values, n=4)
            rate = 1e9 / median
            print(
                f"\n{read.__name__}: {median:.0f} ns a row, quartiles {low:.0f} to {high:.0f}; {rate:,.0f} rows/s"
            )
    assert statistics.median(row[3] / row[2] for row in costs) <= 1.1


def test_a_late_resume_reads_nothing_again(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    """A resume at a byte reads the last row immediately; a resume by index alone reads all rows before it."""
    *_, (_, (index, byte)), _ = csv_rows(path, cursor=None)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(ROUNDS):
        for at_byte, values in seconds.items():
            start = process_time()
            assert len(list(csv_rows(path, cursor=(index, byte) if at_byte else index))) == 1
            values.append(process_time() - start)
    with capsys.disabled():
        for at_byte, values in seconds.items():
            low, high = min(values) * 1e3, max(values) * 1e3
            print(
                f"\nresume after {index:,} rows {'at a byte' if at_byte else 'by index'}: {low:.2f} to {high:.2f} ms"
            )
    assert max(seconds[True]) < min(seconds[False]) / 10
