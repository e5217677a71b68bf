"""Data for the demonstration jobs: the same rows in each run and on each machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from sqlalchemy import Engine, insert
from sqlalchemy.orm import Session

from scenarios.models import Base, Customer, DeliveryStatus, EmailDelivery, Order, OrderStatus
from scenarios.services import PAYMENT_LIMIT_CENTS, refusal

CAMPAIGN = "spring-2024"
"""The campaign that all seeded mails belong to."""

SEED = 20240229
"""The random seed, unless another is given."""

Row = dict[str, Any]

_FIRST_NAMES = ("Amara", "Bruno", "Elena", "Felix", "Hana", "Ivan", "Leila", "Mateo", "Priya", "Sofia")
_LAST_NAMES = ("Bauer", "Costa", "Dubois", "Garcia", "Haddad", "Kim", "Novak", "Okafor", "Rossi", "Tanaka")
_DOMAINS = ("example.com", "example.org")
_FIRST_ORDER_AT = datetime(2024, 1, 1, 8, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Size:
    """Amount of data in each table.

    :ivar name: name of the size on the command line.
    :ivar orders: pending orders, which the order job processes; orders of every other status lie between.
    :ivar customers: customers with completed orders, 2 to 6 each, which the report job goes through; one in
        ten as many have none.
    :ivar mails: pending mails of :data:`CAMPAIGN`, which the mail job sends.
    """

    name: str
    orders: int
    customers: int
    mails: int


# More mails than the mail job sends in one batch.
TINY = Size("tiny", orders=13, customers=5, mails=53)
QUICK = Size("quick", orders=61, customers=50, mails=250)
FULL = Size("full", orders=10_000, customers=2_000, mails=20_000)

_SIZES = {size.name: size for size in (TINY, QUICK, FULL)}


def size_named(name: str) -> Size:
    """Return the size of that name, or one such as ``orders=200,mails=50``; what is not named is not there.

    :raises ValueError: if there is none.
    """
    if match := re.fullmatch(r"(?:(?:orders|customers|mails)=\d+,?)+", name):
        given = {key: int(number) for key, number in re.findall(r"(\w+)=(\d+)", match[0])}
        if given.get("customers") == 0:
            raise ValueError(
                f"got the size {name!r} without customers; use 1 or more, because orders need a customer"
            )
        return Size(name, **{"orders": 0, "customers": 1, "mails": 0, **given})
    if name not in _SIZES:
        raise ValueError(f"there is no size {name!r}; use one of {', '.join(_SIZES)}")
    return _SIZES[name]


def seed(database: Engine | Session, size: Size, seed: int = SEED) -> None:
    """Create the tables, fill customers, orders and mails in one transaction, and commit.

    Payments and reports start empty: what they hold later is what a job did.

    :param database: an empty database.
    :param seed: the same number gives the same rows.
    :raises IntegrityError: if the database has been seeded before; its rows stay as they were.
    """
    if isinstance(database, Engine):
        with Session(database) as session:
            _fill(session, size, Random(seed))
    else:
        _fill(database, size, Random(seed))


def _fill(session: Session, size: Size, random: Random) -> None:
    Base.metadata.create_all(session.connection())
    buyers = size.customers + size.customers // 10
    people = _people(max(buyers, size.mails), random)
    # The database numbers the rows, so that its sequences know of them.
    new_customers = insert(Customer).returning(Customer.id, sort_by_parameter_order=True)
    customers = session.scalars(new_customers, people[:buyers]).all()
    for table, rows in (
        (Order, _orders(size, list(customers), random)),
        (EmailDelivery, _mails(people[: size.mails])),
    ):
        if rows:
            session.execute(insert(table), rows)
    session.commit()


def _people(number: int, random: Random) -> list[Row]:
    people = []
    for index in range(1, number + 1):
        first, last = random.choice(_FIRST_NAMES), random.choice(_LAST_NAMES)
        # The index keeps namesakes apart.
        address = f"{first}.{last}.{index}@{random.choice(_DOMAINS)}".lower()
        people.append({"name": f"{first} {last}", "email": address})
    return people


def _orders(size: Size, customers: list[int], random: Random) -> list[Row]:
    few = size.customers // 10
    reported = customers[: size.customers]
    wanted = [(customer, OrderStatus.COMPLETED) for customer in reported for _ in range(random.randint(2, 6))]
    wanted += [(random.choice(customers), OrderStatus.PENDING) for _ in range(size.orders)]
    wanted += [(random.choice(customers), OrderStatus.PROCESSING) for _ in range(few)]
    wanted += [(random.choice(customers), OrderStatus.FAILED) for _ in range(few)]
    random.shuffle(wanted)
    pending = 0
    orders = []
    for index, (customer, status) in enumerate(wanted):
        pending += status is OrderStatus.PENDING
        # One pending order in sixteen will be declined, as those that failed were.
        too_much = status is OrderStatus.FAILED or (status is OrderStatus.PENDING and pending % 16 == 8)
        amount_cents = random.randint(500, 50_000) + (PAYMENT_LIMIT_CENTS if too_much else 0)
        orders.append(
            {
                "customer_id": customer,
                "status": status,
                "amount_cents": amount_cents,
                "placed_at": _FIRST_ORDER_AT + timedelta(minutes=3 * index),
                "failure": refusal(amount_cents) if status is OrderStatus.FAILED else None,
            }
        )
    return orders


def _mails(people: list[Row]) -> list[Row]:
    return [
        {
            "campaign": CAMPAIGN,
            "recipient": person["email"],
            "status": DeliveryStatus.PENDING,
        }
        for person in people
    ]
