"""Messages that are too old: Celery's ``expires`` and Dramatiq's ``max_age`` concern the first start of a job only."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from harness.queues.holding import new_owner
from harness.queues.tickets import Claimed

if TYPE_CHECKING:
    from harness.queues.tickets import Tickets

log = logging.getLogger("harness.queues")


def expires(tickets: Tickets, job_id: str, n: int, outcome: str) -> bool:
    """Return whether a message that is too old ends its job, and close the ticket then.

    Return False if the job has started before, is running or over, or if the message joins it: the caller lets the
    message pass, and its claim decides. Also return False while Redis cannot be reached.

    The claim makes sure that no other message starts the job. Crash after it: the lease expires, and the sweep's
    message finds a job that counts as not started, which expires again. Lost answer: the same.

    :param n: as for :meth:`harness.queues.tickets.Tickets.claim`.
    """
    try:
        fields = tickets.read(job_id)
        if n <= 0 or not fields:
            return n == 0 and not fields
        if fields.get("executions", "0") != "0" or fields.get("state") == "over":
            return False
        owner = new_owner()
        claimed = tickets.claim(job_id, n, owner)
        return isinstance(claimed, Claimed) and tickets.close(job_id, outcome, owner)
    except RedisError as error:
        log.warning("job %s: its message is too old, and is not dropped: %r", job_id, error)
        return False
