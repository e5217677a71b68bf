"""A deploy in the middle of 2,000 orders of 6 ms, with real workers: what a signal, a SIGKILL and durability cost.

Each order is one commit, and a line in a journal that no rollback removes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from benchmarks.deploy import AllByIteration, AllInSteps
from harness import every, with_transaction
from harness.durability import Durability
from harness.interruptions import parse_interruption
from harness.lab import Lab
from scenarios import orders, services
from scenarios.models import Base, Customer, Order

ORDERS, SECONDS = 2_000, 0.006
START = datetime(2024, 1, 1, tzinfo=UTC)
DURABILITIES: dict[str, Durability] = {str(each): each for each in (every(seconds=1), with_transaction())}


def fill(_size: str) -> None:
    """Fill the empty database with the orders."""
    Base.metadata.create_all(services.engine())
    with services.session() as session:
        session.execute(insert(Customer), [{"name": "A", "email": "a@example.com"}])
        row = {"customer_id": 1, "amount_cents": 100, "placed_at": START}
        session.execute(insert(Order), [row] * ORDERS)
        session.commit()


FORMS = {"plain": orders.plain, "steps": AllInSteps, "iteration": AllByIteration}
SCENARIO = replace(orders.scenario, seed=fill, forms=FORMS)


@pytest.fixture(scope="module", params=[None, "postgresql"], ids=["sqlite", "postgresql"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Yield a lab with a real Redis, whose workers detect crashes with the default settings."""
    directory: Path = tmp_path_factory.mktemp("deploy")
    with Lab(directory, pace=SECONDS, broker="redis", database=request.param, recover_seconds=15) as lab:
        yield lab


@pytest.fixture(scope="module")
def plain_s(lab: Lab) -> float:
    """Return how long the plain loop takes, undisturbed: the better of two runs."""
    none = parse_interruption("none")
    return min(float(lab.run(SCENARIO, "plain", none)["elapsed_s"]) for _ in range(2))


def shown(record: dict[str, Any], plain_s: float) -> str:
    """Return a line of figures."""
    waited = record["resume_latency_s"] or 0.0
    ratio = (record["elapsed_s"] - waited) / plain_s
    return (
        f"\n{record['database']:10} {record['pattern']:9} {record['durability']:18} {record['interruption']:22} "
        f"stop {record['stop_latency_s'] or 0:5.2f} s, back {waited:5.2f} s, repeated {record['repeated']:3}, "
        f"twice in the database {record['duplicated']:3}, lost {record['lost']}, without the wait {ratio:.2f} x plain"
    )


@pytest.mark.parametrize("form", ["steps", "iteration"])
@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("name", ["none", "signal:TERM@count:700", "kill:both@count:700"])
def test_deploy(  # noqa: PLR0917 - fixtures and parameters
    capsys: pytest.CaptureFixture[str], lab: Lab, plain_s: float, form: str, durability: str, name: str
) -> None:
    """Nothing is lost; a signal repeats nothing, SIGKILL a second of work, or nothing in the database."""
    record = lab.run(SCENARIO, form, parse_interruption(name), DURABILITIES[durability])
    with capsys.disabled():
        print(shown(record, plain_s))
    assert (record["completed"], record["lost"]) == (True, 0)
    most = 200 if name.startswith("kill") else 0
    assert record["repeated"] <= most
    assert record["duplicated"] <= (0 if DURABILITIES[durability].transactional else most)
