"""A job over a million rows: the last ones cost what the first ones cost, and memory is that of ten thousand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from time import process_time
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from benchmarks import parcels
from benchmarks.parcels import Parcel
from harness import IterationJob, records

FEW, MANY = 10_000, 1_000_000
ROUNDS = 5


class Weigh(IterationJob):
    """Does nothing with each row, and notes the processor time after each tenth of them."""

    def build_enumerator(self, database: str, rows: int, *, cursor: Any) -> Any:
        """Read the first *rows* rows."""
        self.times = [process_time()]
        self.left = self.tenth = rows // 10
        session = Session(sa.create_engine(database))
        return records(session, sa.select(Parcel).where(Parcel.id <= rows), cursor=cursor)

    def each_iteration(self, parcel: Parcel, database: str, rows: int) -> None:
        """Count."""
        self.left -= 1
        if self.left == 0:
            self.times.append(process_time())
            self.left = self.tenth

    def on_complete(self) -> None:
        """Print us an item in each tenth, and the most MB that were resident."""
        costs = [
            (end - start) / self.tenth * 1e6 for start, end in zip(self.times, self.times[1:], strict=False)
        ]
        # Not getrusage(): its peak is at least what the parent process had when it started this one.
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        megabytes = int(status["VmHWM"].split()[0]) / 1024
        print(json.dumps({"costs": costs, "megabytes": megabytes}))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URL of a database with MANY rows."""
    return parcels.database(tmp_path_factory.mktemp("million"), MANY)


def measure(database: str, rows: int) -> dict[str, Any]:
    """Run the job in a separate process."""
    script = f"from harness import run; from benchmarks.test_million import Weigh; run(Weigh, {database!r}, {rows})"
    root = Path(__file__).parents[1]
    out = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(out.stdout)
    return found


def test_a_million_rows(capsys: pytest.CaptureFixture[str], database: str) -> None:
    """The last tenth within 1.2 times the first, and within 20 MB of ten thousand rows."""
    ratios, grown, costs = [], [], []
    for _ in range(ROUNDS):
        few, many = measure(database, FEW), measure(database, MANY)
        costs += many["costs"]
        ratios.append(many["costs"][-1] / many["costs"][0])
        grown.append(many["megabytes"] - few["megabytes"])
        peak = many["megabytes"]
    with capsys.disabled():
        print(f"\na row of {MANY:,}, by tenths: {min(costs):.2f} to {max(costs):.2f} us")
        print(f"last tenth / first tenth: {', '.join(f'{ratio:.3f}' for ratio in ratios)}")
        print(f"of {peak:.0f} MB resident, above {FEW:,} rows: {', '.join(f'{each:.1f}' for each in grown)}")
    assert sorted(ratios)[ROUNDS // 2] <= 1.2
    assert max(grown) <= 20
