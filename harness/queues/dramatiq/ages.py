"""Dramatiq's ``max_age``: it concerns the first start of a job only."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dramatiq.middleware import AgeLimit

from harness.queues.expiry import expires

if TYPE_CHECKING:
    from dramatiq import Broker

    from harness.queues.tickets import Tickets

ENDLESS_MS = 10**15
"""Age that no message reaches."""


def check(tickets: Tickets, broker: Broker, message: Any, n: int) -> None:
    """Let a message that is too old pass ``AgeLimit`` if its job has started before; else close the ticket.

    :param n: number of the message, as for :func:`harness.queues.expiry.expires`.
    """
    limit = next((each for each in broker.middleware if isinstance(each, AgeLimit)), None)
    if limit is None:
        return
    options = broker.get_actor(message.actor_name).options
    most = message.options.get("max_age") or options.get("max_age", limit.max_age)
    if not most or time.time() * 1000 - message.message_timestamp < most:
        return
    if not expires(tickets, message.message_id, n, "failed"):
        message.options["max_age"] = ENDLESS_MS
