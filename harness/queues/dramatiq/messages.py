"""Messages of jobs on Dramatiq: their stamp, their stored form, and how their processing ends without a result."""

from __future__ import annotations

import json
from contextvars import ContextVar
from typing import Any, NoReturn

from dramatiq.common import q_name
from dramatiq.middleware import SkipMessage

ACTOR, STAMP = "harness_job", "harness"
"""Name of the actor; option of a message with the number and the round of its ticket."""

resending: ContextVar[bool] = ContextVar("harness_resending", default=False)
"""True while a stored message is sent again."""

current: ContextVar[Any] = ContextVar("harness_message", default=None)
"""The message that this thread processes: Dramatiq gives an actor its arguments only."""


def skip(message: Any, reason: str) -> NoReturn:
    """End the processing of a message without a result, a retry or a failure.

    :raises SkipMessage: always.
    """
    # Dramatiq stores None as the result of a skipped message, which the caller would take for the job's.
    message.options["store_results"] = False
    raise SkipMessage(reason)


def stored_form(message: Any) -> str:
    """Return a message as JSON, without data that belongs to one sending."""
    options = {
        name: value
        for name, value in message.options.items()
        if name not in {"eta", "redis_message_id", STAMP}
    }
    return json.dumps({
        "queue_name": q_name(message.queue_name), "actor_name": message.actor_name, "args": list(message.args),
        "kwargs": message.kwargs, "options": options, "message_id": message.message_id,
        "message_timestamp": message.message_timestamp,
    })  # fmt: skip
