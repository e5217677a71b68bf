"""Its models."""

from __future__ import annotations

import os

from sqlalchemy import ForeignKey, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker


class Base(DeclarativeBase):
    """Base of all tables."""


class Member(Base):
    """Member, who pays a fee every month."""

    __tablename__ = "members"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    welcomed: Mapped[bool] = mapped_column(default=False)


class Fee(Base):
    """A fee that was charged."""

    __tablename__ = "fees"

    id: Mapped[int] = mapped_column(primary_key=True)
    member_id: Mapped[int] = mapped_column(ForeignKey(Member.id))
    month: Mapped[str]


class FeeOnce(Base):
    """A fee that can be charged once only."""

    __tablename__ = "fees_once"

    member_id: Mapped[int] = mapped_column(ForeignKey(Member.id), primary_key=True)
    month: Mapped[str] = mapped_column(primary_key=True)


engine = create_engine(os.environ.get("SHOPAPP_DATABASE", "sqlite:///shopapp.db"))
Session = sessionmaker(engine)


def fill() -> None:
    """Make the tables and some members."""
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with Session() as session:
        session.add_all(Member(id=number, email=f"member{number}@example.com") for number in range(1, 6))
        session.commit()
