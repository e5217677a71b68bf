"""Actions of users on jobs, from the web page or a terminal, with their entries in the history of the job."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.queues.history import note_action

if TYPE_CHECKING:
    from redis import Redis


@contextmanager
def acting(connection: Redis, job_id: str, action: str, by: str, reason: str | None = None) -> Iterator[None]:
    """Write an action to the history of a job, run it in the block, and record why it was refused, if it was.

    Crash between the entry and the action: the history has an action that did not happen. Lost answer to the entry: the
    action is not carried out, and may be listed twice when it is repeated.

    :param by: user. :param reason: more about the action.
    """
    note_action(connection, job_id, action, by, reason)
    try:
        yield
    except HarnessError as error:
        note_action(connection, job_id, action, by, f"refused: {error}")
        raise


def terminal_user() -> str:
    """Return the user of this process, for the history of a job."""
    try:
        return f"{getpass.getuser()} in a terminal"
    except (OSError, KeyError, ImportError):  # containers run users that have no name
        return "a terminal"
