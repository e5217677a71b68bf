"""The database of the demonstration jobs: how it is opened, and what it is seeded with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from harness.errors import UsageError
from scenarios import services
from scenarios.models import Base, Customer, EmailDelivery, Order, OrderStatus
from scenarios.seed import CAMPAIGN, FULL, QUICK, Size, seed, size_named
from tests.databases import used_by_services

TINY = Size("tiny", orders=17, customers=10, mails=4)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Yield the engine that the services use, on a database with nothing in it."""
    with used_by_services(monkeypatch, f"sqlite:///{tmp_path}/domain.db") as engine:
        yield engine


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    """Yield a session of the services."""
    with services.session() as session:
        yield session


@pytest.fixture
def two_engines(tmp_path: Path) -> Iterator[tuple[Engine, Engine]]:
    """Yield two databases with nothing in them."""
    first, second = (create_engine(f"sqlite:///{tmp_path}/{name}.db") for name in ("first", "second"))
    yield first, second
    first.dispose()
    second.dispose()


# Opening it


def test_unset_database_url_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error for a missing database names the variable and an example, in one line."""
    monkeypatch.delenv("HARNESS_DATABASE_URL", raising=False)
    with pytest.raises(UsageError, match=r"HARNESS_DATABASE_URL is not set; .* sqlite:///demo\.db$") as error:
        services.session()
    assert "\n" not in str(error.value)


def test_database_that_cannot_add_atomically_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database other than the two supported ones is refused by name, with what is allowed."""
    monkeypatch.setenv("HARNESS_DATABASE_URL", "mysql://localhost/shop")
    with pytest.raises(UsageError, match="names a mysql database; use one of sqlite, postgresql"):
        services.engine()


@pytest.mark.parametrize(
    ("pragma", "value"),
    [("journal_mode", "wal"), ("foreign_keys", 1), ("synchronous", 1), ("busy_timeout", 30_000)],
)
def test_sqlite_is_set_up_for_several_processes(session: Session, pragma: str, value: object) -> None:
    """SQLite checks foreign keys, waits for other writers, and lets readers read during a write."""
    assert session.scalar(text(f"PRAGMA {pragma}")) == value


def test_engine_is_made_once_for_each_url(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions on one URL share an engine; another URL gets another; after dispose() a new one is made."""
    assert services.engine() is engine
    monkeypatch.setenv("HARNESS_DATABASE_URL", "sqlite://")
    assert services.engine() is not engine
    monkeypatch.setenv("HARNESS_DATABASE_URL", str(engine.url))
    services.dispose()
    assert services.engine() is not engine


def test_forked_child_does_not_touch_its_parents_connections(session: Session) -> None:
    """In a process that runs jobs, a forked child gets its own connection from the engine that its parent used."""
    Base.metadata.create_all(session.connection())
    session.commit()
    script = """
import os
from sqlalchemy import text
from harness.runtime import forks
from scenarios import services

def opened():
    with services.session() as session:
        session.execute(text("SELECT 1"))
        return session.connection().connection.dbapi_connection

with forks.guarding():
    kept = opened()
    assert opened() is kept
    if (child := os.fork()) == 0:
        with services.session() as session:
            session.execute(text("INSERT INTO customers (name, email) VALUES ('Hana', 'hana@example.com')"))
            session.commit()
        os._exit(0 if opened() is not kept else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert opened() is kept
services.dispose()
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    assert session.scalars(select(Customer.email)).all() == ["hana@example.com"]


# Seeding it


@pytest.mark.parametrize("size", [QUICK, FULL], ids=lambda size: size.name)
def test_size_is_found_by_its_name(size: Size) -> None:
    """A size has a name on the command line."""
    assert size_named(size.name) is size


def test_unknown_size_is_refused_with_those_that_exist() -> None:
    """The error for an unknown size lists the known ones."""
    with pytest.raises(ValueError, match="no size 'huge'; use one of tiny, quick, full"):
        size_named("huge")


def test_quick_data_has_the_promised_size(session: Session) -> None:
    """QUICK is 61 pending orders among others, 50 customers to report on with about 200, and 250 mails."""
    seed(session, QUICK)
    counts = Counter(session.scalars(select(Order.status)))
    assert counts[OrderStatus.PENDING] == 61
    assert 150 <= counts[OrderStatus.COMPLETED] <= 250
    assert set(counts) == set(OrderStatus)
    assert len(session.scalars(Customer.with_completed_orders()).all()) == 50
    assert len(session.scalars(select(Customer)).all()) > 50
    assert len(session.scalars(EmailDelivery.pending(CAMPAIGN)).all()) == 250


def test_pending_orders_lie_among_others(session: Session) -> None:
    """The ids of pending orders have gaps, as they do in a shop that is open."""
    seed(session, QUICK)
    ids = sorted(order.id for order in session.scalars(Order.pending()))
    assert ids[-1] - ids[0] > 2 * len(ids)


def test_customers_have_several_orders_and_not_equally_many(session: Session) -> None:
    """Every customer in the report has at least two completed orders, and their numbers differ."""
    seed(session, QUICK)
    numbers = {orders for orders, _ in services.expected_totals(session).values()}
    assert min(numbers) >= 2
    assert len(numbers) >= 3


def test_few_of_the_pending_orders_are_declined(session: Session) -> None:
    """Some pending orders are over the limit, but most are not."""
    seed(session, QUICK)
    declined = [order for order in session.scalars(Order.pending()) if services.refusal(order.amount_cents)]
    assert 2 <= len(declined) <= 6


def test_failed_orders_failed_by_the_same_rule(session: Session) -> None:
    """An order that is seeded as failed carries the text that processing would have given it."""
    seed(session, QUICK)
    failed = session.scalars(Order.with_status(OrderStatus.FAILED)).all()
    assert failed
    assert [order.failure for order in failed] == [services.refusal(order.amount_cents) for order in failed]


def test_seeded_database_shows_no_work_yet(engine: Engine) -> None:
    """Payments and reports start empty, so that what is in them later is what a job did."""
    seed(engine, TINY)
    assert _rows(engine, "payments", "customer_reports") == []


def test_same_seed_gives_the_same_tables(two_engines: tuple[Engine, Engine]) -> None:
    """Two databases seeded alike, one through an engine and one through a session, are equal row by row."""
    first, second = two_engines
    seed(first, QUICK)
    with Session(second) as session:
        seed(session, QUICK)
    assert _rows(first) == _rows(second) != []


def test_another_seed_gives_other_orders(two_engines: tuple[Engine, Engine]) -> None:
    """The seed decides on the data, not on how much there is to do."""
    first, second = two_engines
    seed(first, TINY, seed=1)
    seed(second, TINY, seed=2)
    assert _rows(first, "orders") != _rows(second, "orders")
    assert len(_rows(first, "email_deliveries")) == len(_rows(second, "email_deliveries")) == TINY.mails


def test_seeding_twice_is_refused_and_changes_nothing(engine: Engine) -> None:
    """A database with data in it keeps that data."""
    seed(engine, TINY)
    before = _rows(engine)
    with pytest.raises(IntegrityError):
        seed(engine, TINY)
    assert _rows(engine) == before


def test_seeded_addresses_belong_to_nobody(session: Session) -> None:
    """Every address is under a domain that is reserved for examples."""
    seed(session, TINY)
    addresses = [*session.scalars(select(Customer.email)), *session.scalars(select(EmailDelivery.recipient))]
    assert {address.partition("@")[2] for address in addresses} == {"example.com", "example.org"}


def _rows(engine: Engine, *tables: str) -> list[tuple[Any, ...]]:
    wanted = tables or tuple(Base.metadata.tables)
    with engine.connect() as connection:
        return [
            (name, *row)
            for name in wanted
            for row in connection.execute(select(Base.metadata.tables[name]).order_by(text("1")))
        ]
