"""Tables of the demonstration jobs, with constraints that hold for every writer.

The named queries (:meth:`Order.pending` and its like) have neither ORDER BY nor LIMIT. A reader that uses pages
adds both, after the primary key.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import (
    CheckConstraint,
    DateTime,
    Enum,
    ForeignKey,
    Index,
    MetaData,
    String,
    TypeDecorator,
    UniqueConstraint,
    cast,
    func,
    literal,
    select,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, validates

if TYPE_CHECKING:
    from sqlalchemy import Dialect, Select

_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+")


class OrderStatus(StrEnum):
    """Status of an order; ``PROCESSING`` means that another worker has it."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"


class DeliveryStatus(StrEnum):
    """Status of a mail; ``FAILED`` means that its recipient was refused for good."""

    PENDING = "pending"
    SENT = "sent"
    FAILED = "failed"


def _stored_as_text(kind: type[StrEnum]) -> Enum:
    # By value, in a text column with a CHECK: an enum type of the database's own is hard to change later.
    return Enum(
        kind,
        name="status",
        native_enum=False,
        create_constraint=True,
        length=16,
        values_callable=lambda members: [member.value for member in members],
    )


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, stored in UTC without a time zone, because databases differ in what they make of one.

    :raises ValueError: on writing a moment that has no time zone.
    """

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Convert an aware datetime to the stored form."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a moment needs a time zone; got {value!r}; give it one, such as UTC")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Convert the stored form to a datetime in UTC."""
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """Base of all tables; every constraint has a name, so that an IntegrityError says which one it was."""

    metadata = MetaData(
        naming_convention={
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime}  # noqa: RUF012 - SQLAlchemy reads it once, and no code writes it


class Customer(Base):
    """Customer, who places orders."""

    __tablename__ = "customers"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    email: Mapped[str] = mapped_column(unique=True)
    orders: Mapped[list[Order]] = relationship(back_populates="customer")

    @validates("email")
    def _check_email(self, _key: str, email: str) -> str:
        return _address(email)

    @classmethod
    def with_completed_orders(cls) -> Select[Customer]:
        """Select the customers that the report is about."""
        return select(cls).where(cls.orders.any(Order.status == OrderStatus.COMPLETED))


class Order(Base):
    """Order that a customer wants to pay for; it has a failure text if and only if it failed."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey(Customer.id))
    status: Mapped[OrderStatus] = mapped_column(_stored_as_text(OrderStatus), default=OrderStatus.PENDING)
    amount_cents: Mapped[int]
    placed_at: Mapped[datetime]
    failure: Mapped[str | None]
    customer: Mapped[Customer] = relationship(back_populates="orders")

    __table_args__ = (
        CheckConstraint("amount_cents > 0", name="amount"),
        CheckConstraint("(status = 'failed') = (failure IS NOT NULL)", name="failure"),
        # Both end in the primary key, so that a page after a cursor is one range of the index.
        Index(None, "status", "id"),
        Index(None, "customer_id", "status", "id"),
    )

    @validates("amount_cents")
    def _check_amount(self, _key: str, amount_cents: int) -> int:
        if amount_cents <= 0:
            raise ValueError(f"an order is over 1 cent or more; got {amount_cents}")
        return amount_cents

    @classmethod
    def with_status(cls, status: OrderStatus) -> Select[Order]:
        """Select the orders with this status."""
        return select(cls).where(cls.status == status)

    @classmethod
    def pending(cls) -> Select[Order]:
        """Select the orders that are still to be processed."""
        return cls.with_status(OrderStatus.PENDING)

    @classmethod
    def completed(cls) -> Select[Order]:
        """Select the orders that were paid."""
        return cls.with_status(OrderStatus.COMPLETED)

    @classmethod
    def completed_of(cls, customer_id: int) -> Select[Order]:
        """Select the orders that this customer has paid."""
        return cls.completed().where(cls.customer_id == customer_id)

    @classmethod
    def statuses(cls) -> Select[str, str, int]:
        """Select the number of orders by status."""
        return select(literal("orders"), cast(cls.status, String), func.count()).group_by(cls.status)

    @classmethod
    def paid_more_than_once(cls) -> Select[Order]:
        """Select the orders that the payment provider was asked about again."""
        asked = select(Payment.order_id).group_by(Payment.order_id).having(func.count() > 1)
        return select(cls).where(cls.id.in_(asked))


class Payment(Base):
    """One request as the payment provider saw it.

    Several for one order are allowed on purpose: the provider does not know that it was asked before, and
    one row for each attempt is how a customer who was charged twice becomes visible.
    """

    __tablename__ = "payments"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey(Order.id), index=True)
    amount_cents: Mapped[int]
    accepted: Mapped[bool]

    __table_args__ = (CheckConstraint("amount_cents > 0", name="amount"),)


class CustomerReport(Base):
    """Totals the report has counted for a customer so far; the report job adds to them order by order."""

    __tablename__ = "customer_reports"

    customer_id: Mapped[int] = mapped_column(ForeignKey(Customer.id), primary_key=True)
    orders_counted: Mapped[int]
    total_cents: Mapped[int]

    __table_args__ = (CheckConstraint("orders_counted > 0 AND total_cents > 0", name="positive"),)

    @classmethod
    def statuses(cls) -> Select[str, str, int]:
        """Select the number of counted orders."""
        return select(
            literal("reports"), literal("orders counted"), func.coalesce(func.sum(cls.orders_counted), 0)
        )


class EmailDelivery(Base):
    """One mail of a campaign to one address; it has a time of sending if and only if it was sent.

    :ivar recipient: the address as it was when the campaign was planned; not only customers subscribe.
    """

    __tablename__ = "email_deliveries"

    id: Mapped[int] = mapped_column(primary_key=True)
    campaign: Mapped[str]
    recipient: Mapped[str]
    status: Mapped[DeliveryStatus] = mapped_column(
        _stored_as_text(DeliveryStatus), default=DeliveryStatus.PENDING
    )
    sent_at: Mapped[datetime | None]

    __table_args__ = (
        UniqueConstraint("campaign", "recipient"),
        CheckConstraint("(status = 'sent') = (sent_at IS NOT NULL)", name="sent_at"),
        Index(None, "campaign", "status", "id"),
    )

    @validates("recipient")
    def _check_recipient(self, _key: str, recipient: str) -> str:
        return _address(recipient)

    @classmethod
    def pending(cls, campaign: str) -> Select[EmailDelivery]:
        """Select the mails of the campaign that are still to be sent."""
        return select(cls).where(cls.campaign == campaign, cls.status == DeliveryStatus.PENDING)

    @classmethod
    def statuses(cls) -> Select[str, str, int]:
        """Select the number of mails by campaign and status."""
        what = literal("mails of ", String) + cls.campaign
        return select(what, cast(cls.status, String), func.count()).group_by(cls.campaign, cls.status)

    @classmethod
    def recipients(cls, campaign: str) -> Select[str]:
        """Select the addresses of all mails of a campaign, whatever their status."""
        return select(cls.recipient).where(cls.campaign == campaign)


def _address(value: str) -> str:
    if not _ADDRESS.fullmatch(value):
        raise ValueError(f"a mail address looks like name@example.com; got {value!r}")
    return value
