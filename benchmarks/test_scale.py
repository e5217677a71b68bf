"""The orders job from 1,000 to 100,000 orders: memory stays flat, and an order costs the same throughout."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import pytest
from sqlalchemy import insert

from harness import run
from scenarios import services
from scenarios.models import Base, Customer, Order
from scenarios.orders import OrdersByIteration, OrdersInSteps

SIZES = (1_000, 10_000, 100_000)
START = datetime(2024, 1, 1, tzinfo=UTC)


def fill(orders: int) -> None:
    """Fill an empty database with *orders* pending orders."""
    Base.metadata.create_all(services.engine())
    with services.session() as session:
        session.execute(insert(Customer), [{"name": "A", "email": "a@example.com"}])
        for start in range(0, orders, 10_000):
            rows = range(start, min(start + 10_000, orders))
            session.execute(
                insert(Order), [{"customer_id": 1, "amount_cents": 100, "placed_at": START} for _ in rows]
            )
        session.commit()


def measure(form: str, orders: int) -> None:
    """Run the job in this process; print items done, us an order, peak MB resident before it and after it."""
    fill(orders)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = perf_counter()
    progress = run({"steps": OrdersInSteps, "iteration": OrdersByIteration}[form])
    seconds = perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    services.dispose()
    print(progress.done, seconds / orders * 1e6, before / 1024, after / 1024)


@pytest.mark.parametrize("form", ["steps", "iteration"])
def test_scale(capsys: pytest.CaptureFixture[str], tmp_path: Path, form: str) -> None:
    """Keyset pages use neither OFFSET nor a list of all rows; each size runs in a separate process."""
    with capsys.disabled():
        for orders in SIZES:
            script = f"from benchmarks.test_scale import measure; measure({form!r}, {orders})"
            database = f"sqlite:///{tmp_path / f'{orders}.db'}"
            out = subprocess.run(
                [sys.executable, "-c", script], env={**os.environ, "HARNESS_DATABASE_URL": database},
                capture_output=True, text=True, check=True,
            ).stdout.split()  # fmt: skip
            done, cost, before, after = int(out[0]), *map(float, out[1:])
            print(
                f"\n{form} {orders:7,} orders: {cost:6.1f} us an order, resident {before:.0f} -> {after:.0f} MB"
            )
            assert done == orders
