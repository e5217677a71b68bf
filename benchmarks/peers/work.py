"""Work that all peers do: one order is a pause, one row and one commit."""

from __future__ import annotations

import os
import time
from functools import cache
from typing import Any

import sqlalchemy as sa

DATABASE, BROKER = "PEERS_DATABASE", "PEERS_BROKER"
"""Environment variables with the URLs of the database and of the broker."""

DONE = sa.Table(
    "done",
    sa.MetaData(),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
)


@cache
def engine() -> sa.Engine:
    """Return the engine of this process."""
    return sa.create_engine(os.environ[DATABASE])


def pay(connection: Any, number: int, seconds: float) -> None:
    """Do one order; the caller commits."""
    if seconds:
        time.sleep(seconds)
    connection.execute(sa.insert(DONE), {"number": number, "at": time.time()})


def process(number: int, seconds: float) -> None:
    """Do one order and commit it."""
    with engine().begin() as connection:
        pay(connection, number, seconds)


def plain(orders: int, seconds: float) -> None:
    """Do the orders one after the other: the loop that people write today."""
    for number in range(orders):
        process(number, seconds)
