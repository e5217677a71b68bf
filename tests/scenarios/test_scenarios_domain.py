"""The business domain of the demonstration jobs: the rules of its tables, and its units of work."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select, text, update
from sqlalchemy.exc import IntegrityError, InvalidRequestError, StatementError
from sqlalchemy.orm import Session

from harness.ledger import marking
from scenarios import services
from scenarios.models import (
    Base,
    Customer,
    CustomerReport,
    DeliveryStatus,
    EmailDelivery,
    Order,
    OrderStatus,
    Payment,
)
from scenarios.seed import CAMPAIGN, QUICK, seed
from tests.databases import used_by_services

RowT = TypeVar("RowT", bound=Base)

NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Yield the engine that the services use, on a database with all tables and no rows."""
    with used_by_services(monkeypatch, f"sqlite:///{tmp_path}/domain.db") as engine:
        Base.metadata.create_all(engine)
        yield engine


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    """Yield a session of the services."""
    with services.session() as session:
        yield session


@pytest.fixture
def customer(session: Session) -> Customer:
    """Return a customer who can place orders."""
    return _stored(session, Customer(name="Hana Novak", email="hana@example.com"))


# Constraints: rows that no writer can store


@pytest.mark.parametrize(
    ("values", "constraint"),
    [
        ({"amount_cents": 0}, "ck_orders_amount"),
        ({"status": "lost"}, "ck_orders_status"),
        ({"status": "failed", "failure": None}, "ck_orders_failure"),
        ({"status": "completed", "failure": "declined"}, "ck_orders_failure"),
        ({"customer_id": 99}, "FOREIGN KEY"),
    ],
)
def test_order_that_breaks_a_rule_is_refused_by_the_database(
    session: Session, customer: Customer, values: dict[str, Any], constraint: str
) -> None:
    """An order has a customer, a known status, a positive amount, and a failure text exactly if it failed."""
    _stored(session, _order(customer))
    with pytest.raises(IntegrityError, match=constraint):
        session.execute(update(Base.metadata.tables["orders"]).values(values))


def test_status_is_stored_as_text(session: Session, customer: Customer) -> None:
    """A status is readable text in the table."""
    _stored(session, _order(customer))
    assert session.scalar(text("SELECT status FROM orders")) == "pending"


def test_customers_do_not_share_an_address(session: Session, customer: Customer) -> None:
    """An address belongs to one customer."""
    with pytest.raises(IntegrityError, match=r"customers\.email"):
        _stored(session, Customer(name="Hana Kim", email=customer.email))


@pytest.mark.parametrize("amount_cents", [0, -5])
def test_order_over_nothing_is_refused_at_once(amount_cents: int) -> None:
    """An amount that is not positive is refused when it is set, naming it."""
    with pytest.raises(ValueError, match=f"1 cent or more; got {amount_cents}$"):
        Order(amount_cents=amount_cents)


@pytest.mark.parametrize(
    "address", ["", "hana", "@example.com", "hana@", "a b@example.com", "a@b\r\nBcc: c@d"]
)
def test_what_is_no_address_is_refused_at_once(address: str) -> None:
    """An address that cannot receive mail is refused when it is set, for customers and recipients alike."""
    with pytest.raises(ValueError, match="a mail address looks like"):
        Customer(email=address)
    with pytest.raises(ValueError, match="a mail address looks like"):
        EmailDelivery(recipient=address)


def test_provider_accepts_several_requests_for_one_order(session: Session, customer: Customer) -> None:
    """Nothing keeps two payments for the same order apart: that is how a duplicate becomes visible."""
    order = _stored(session, _order(customer))
    twice = [Payment(order_id=order.id, amount_cents=1_250, accepted=True) for _ in range(2)]
    session.add_all(twice)
    session.commit()
    assert _payments(session) == [(order.id, True)] * 2


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ({"recipient": "reader1@example.org"}, "campaign, email_deliveries.recipient"),
        ({"status": DeliveryStatus.SENT}, "ck_email_deliveries_sent_at"),
        ({"sent_at": NOON}, "ck_email_deliveries_sent_at"),
    ],
)
def test_delivery_that_breaks_a_rule_is_refused_by_the_database(
    session: Session, change: dict[str, Any], constraint: str
) -> None:
    """A campaign mails an address once, a Message-ID names one mail, and sent mails alone have a time."""
    _stored(session, _delivery(1))
    with pytest.raises(IntegrityError, match=constraint):
        _stored(session, _delivery(2, **change))


def test_two_campaigns_may_mail_the_same_address(session: Session) -> None:
    """An address is taken within one campaign only."""
    session.add_all([_delivery(1), _delivery(1, campaign="summer-2024")])
    session.commit()
    assert session.scalar(select(func.count()).select_from(EmailDelivery)) == 2


def test_moment_comes_back_as_the_same_moment_in_utc(session: Session, customer: Customer) -> None:
    """A moment keeps its meaning, not its time zone."""
    order = _order(customer)
    order.placed_at = NOON.astimezone(timezone(timedelta(hours=-5)))
    _stored(session, order)
    session.refresh(order)
    assert order.placed_at == NOON
    assert order.placed_at.tzinfo is UTC


def test_moment_without_a_time_zone_is_refused(session: Session, customer: Customer) -> None:
    """A naive moment could mean anything and is not stored."""
    order = _order(customer)
    order.placed_at = NOON.replace(tzinfo=None)
    with pytest.raises(StatementError, match="a moment needs a time zone"):
        _stored(session, order)


# Named queries


def test_orders_are_selected_by_status(session: Session, customer: Customer) -> None:
    """Each named query selects the orders of its status and no others."""
    failed = _order(customer, status=OrderStatus.FAILED, failure="declined")
    others = [_order(customer, status=status) for status in OrderStatus if status is not OrderStatus.FAILED]
    session.add_all([failed, *others])
    session.commit()
    for status in OrderStatus:
        assert {order.status for order in session.scalars(Order.with_status(status))} == {status}
    assert session.scalars(Order.pending()).one().status is OrderStatus.PENDING
    assert session.scalars(Order.completed()).one().status is OrderStatus.COMPLETED


def test_completed_orders_of_one_customer(session: Session, customer: Customer) -> None:
    """The report reads the completed orders of one customer at a time."""
    other = _stored(session, Customer(name="Ivan Costa", email="ivan@example.com"))
    mine = _order(customer, status=OrderStatus.COMPLETED)
    session.add_all([mine, _order(customer), _order(other, status=OrderStatus.COMPLETED)])
    session.commit()
    assert session.scalars(Order.completed_of(customer.id)).all() == [mine]


def test_customer_with_several_completed_orders_is_selected_once(
    session: Session, customer: Customer
) -> None:
    """The report is about customers with completed orders, each of them once."""
    other = _stored(session, Customer(name="Ivan Costa", email="ivan@example.com"))
    session.add_all([_order(customer, status=OrderStatus.COMPLETED) for _ in range(3)])
    session.add(_order(other))
    session.commit()
    assert session.scalars(Customer.with_completed_orders()).all() == [customer]


def test_pending_mails_are_those_of_the_campaign(session: Session) -> None:
    """The selection leaves out sent mails and those of another campaign."""
    wanted = _delivery(1)
    sent = _delivery(2, status=DeliveryStatus.SENT, sent_at=NOON)
    session.add_all([wanted, sent, _delivery(3, campaign="summer-2024")])
    session.commit()
    assert session.scalars(EmailDelivery.pending(CAMPAIGN)).all() == [wanted]


# Processing an order


def test_accepted_order_is_completed_with_one_payment(session: Session, customer: Customer) -> None:
    """An order within the limit is paid once and completed."""
    order = _stored(session, _order(customer, services.PAYMENT_LIMIT_CENTS))
    services.process_order(session, order)
    session.refresh(order)
    assert (order.status, order.failure) == (OrderStatus.COMPLETED, None)
    assert _payments(session) == [(order.id, True)]


def test_declined_order_fails_with_a_text_and_one_payment(session: Session, customer: Customer) -> None:
    """An order over the limit fails; its failure text names both amounts, and the provider has seen it."""
    order = _stored(session, _order(customer, 100_001))
    services.process_order(session, order)
    session.refresh(order)
    assert order.status is OrderStatus.FAILED
    assert order.failure == "declined: 100001 cents is over the limit of 100000"
    assert _payments(session) == [(order.id, False)]


@pytest.mark.parametrize("amount_cents", [1_250, 100_001])
def test_order_processed_again_is_charged_again(
    session: Session, customer: Customer, amount_cents: int
) -> None:
    """Each call makes exactly one payment, with the same answer as before: the caller chooses."""
    order = _stored(session, _order(customer, amount_cents))
    services.process_order(session, order)
    before = (order.status, order.failure)
    services.process_order(session, order)
    session.refresh(order)
    assert (order.status, order.failure) == before
    first, second = _payments(session)
    assert first == second


def test_order_and_payment_are_stored_together_or_not_at_all(session: Session, customer: Customer) -> None:
    """If the payment cannot be stored, the order stays pending."""
    order = _stored(session, _order(customer))
    session.execute(
        text("CREATE TRIGGER full BEFORE INSERT ON payments BEGIN SELECT RAISE(ABORT, 'full'); END")
    )
    session.commit()
    with pytest.raises(IntegrityError, match="full"):
        services.process_order(session, order)
    session.rollback()
    assert session.scalars(Order.pending()).one() is order
    assert _payments(session) == []


def test_order_of_another_session_is_refused(session: Session, customer: Customer) -> None:
    """An order that this session could not store is refused and unchanged, and nothing is charged."""
    order = _stored(session, _order(customer))
    with services.session() as other, pytest.raises(InvalidRequestError, match="already attached"):
        services.process_order(other, order)
    assert not session.dirty
    assert _payments(session) == []


def test_order_is_marked_before_anything_else(session: Session, customer: Customer) -> None:
    """The ledger names the order even if the work on it then fails."""
    order = _stored(session, _order(customer))
    marked: list[str] = []
    with marking(marked.append):
        services.process_order(session, order)
        with services.session() as other, pytest.raises(InvalidRequestError):
            services.process_order(other, order)
    assert marked == [f"order {order.id}"] * 2


@given(st.integers(min_value=1))
def test_refusal_depends_on_the_limit_alone(amount_cents: int) -> None:
    """An amount is declined if and only if it is over the limit."""
    assert (services.refusal(amount_cents) is None) == (amount_cents <= services.PAYMENT_LIMIT_CENTS)


# Adding up the report


def test_report_on_completed_orders_is_what_is_expected(session: Session) -> None:
    """Added order by order, the report equals one aggregate over the completed orders."""
    seed(session, QUICK)
    assert services.report_totals(session) == {}
    for order in session.scalars(Order.completed()).all():
        services.add_to_report(session, order)
    assert services.report_totals(session) == services.expected_totals(session)
    assert len(services.report_totals(session)) == QUICK.customers


def test_only_completed_orders_are_expected_in_the_report(session: Session, customer: Customer) -> None:
    """Orders of other statuses were not paid and do not count."""
    session.add_all([_order(customer, status=OrderStatus.COMPLETED), _order(customer)])
    session.add(_order(customer, status=OrderStatus.FAILED, failure="declined"))
    session.commit()
    assert services.expected_totals(session) == {customer.id: (1, 1_250)}


def test_order_added_twice_counts_twice(session: Session, customer: Customer) -> None:
    """A repeated order shows in the report, because nothing there remembers which orders it holds."""
    order = _stored(session, _order(customer))
    marked: list[str] = []
    with marking(marked.append):
        services.add_to_report(session, order)
        services.add_to_report(session, order)
    assert services.report_totals(session) == {customer.id: (2, 2_500)}
    assert marked == [f"order {order.id}"] * 2


def test_report_is_added_up_in_the_database_not_in_memory(session: Session, customer: Customer) -> None:
    """Data that a session has read from the report before does not change the amount it adds."""
    order = _stored(session, _order(customer))
    services.add_to_report(session, order)
    session.commit()
    stale = session.get_one(CustomerReport, customer.id)
    with services.session() as other:
        services.add_to_report(other, other.get_one(Order, order.id))
        other.commit()
    services.add_to_report(session, order)
    assert stale.orders_counted == 1
    assert services.report_totals(session) == {customer.id: (3, 3_750)}


def test_workers_that_add_at_the_same_time_lose_nothing(session: Session, customer: Customer) -> None:
    """Workers that are first for a customer at the same time are all counted."""
    order = _stored(session, _order(customer))

    def work(_worker: int) -> None:
        with services.session() as own:
            for _ in range(10):
                services.add_to_report(own, own.get_one(Order, order.id))
                own.commit()

    with ThreadPoolExecutor(3) as workers:
        list(workers.map(work, range(3)))
    assert services.report_totals(session) == {customer.id: (30, 37_500)}


def _stored(session: Session, row: RowT) -> RowT:
    session.add(row)
    session.commit()
    return row


def _order(customer: Customer, amount_cents: int = 1_250, **values: Any) -> Order:
    return Order(customer_id=customer.id, amount_cents=amount_cents, placed_at=NOON, **values)


def _delivery(number: int, **values: Any) -> EmailDelivery:
    campaign = values.get("campaign", CAMPAIGN)
    row = {
        "campaign": campaign,
        "recipient": f"reader{number}@example.org",
    }
    return EmailDelivery(**(row | values))


def _payments(session: Session) -> list[tuple[int, bool]]:
    rows = session.execute(select(Payment.order_id, Payment.accepted).order_by(Payment.id))
    return [(order_id, accepted) for order_id, accepted in rows]
