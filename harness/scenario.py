"""Description of a job for a comparison: its three forms, its data, and the check of its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy import Select

    from harness.lab.mailbox import Mailbox

FORMS = ("plain", "steps", "iteration")


@dataclass(frozen=True)
class Effects:
    """Result of a scenario's check.

    :ivar lost: items whose effect never happened. :ivar duplicated: items whose effect happened more than once.
    :ivar duplicated_by_key: items that a receiver sees more than once although it ignores repeated
        idempotency keys; None if effects have no key.
    :ivar checks: other conditions, with their descriptions and results.
    """

    lost: int
    duplicated: int
    duplicated_by_key: int | None = None
    checks: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Scenario:
    """A job in its three forms, with its data, its size and its outcome.

    :ivar forms: the plain function, the ContinuableJob and the IterationJob.
    :ivar seed: fills the empty database with data of a named size. :ivar clear: drops the data of ``seed``.
        :ivar arguments: returns the arguments of the plain form: the ids of the items at that time. :ivar
        count: returns the number of items.
    :ivar judge: checks the tables and the mailbox after the job.
    :ivar close: closes the connections that the job opened.
    :ivar items_per_checkpoint: number of items between two checkpoints.
    :ivar create: makes the empty tables, if missing.
    :ivar statuses: for the watch screen: a SQLAlchemy select of (what, status, how many).
    """

    name: str
    forms: Mapping[str, Any]
    seed: Callable[[str], None]
    clear: Callable[[], None]
    arguments: Callable[[], list[int]]
    count: Callable[[], int]
    judge: Callable[[Mailbox], Effects]
    close: Callable[[], None]
    items_per_checkpoint: int = 1
    create: Callable[[], None] | None = None
    statuses: Callable[[], Select[str, str, int]] | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def form_names(self) -> list[str]:
        """Available forms in the order of the comparison; not every scenario has all."""
        return [form for form in FORMS if form in self.forms]

    def fill(self, size: str) -> None:
        """Fill the empty database with data of a named size.

        :raises UsageError: if the scenario does not know the size.
        """
        try:
            self.seed(size)
        except ValueError as error:
            raise UsageError(f"scenario {self.name} has no such data: {error}") from error
        except KeyError as error:
            if error.args != (size,):
                raise  # another key is missing, not the size
            raise UsageError(f"scenario {self.name} has no such data: there is no size {size!r}") from error

    def check_form(self, form: str) -> None:
        """Refuse a form that the scenario does not have.

        :raises UsageError: naming its forms.
        """
        if form not in self.forms:
            raise UsageError(f"scenario {self.name} has no form {form!r}; use {', '.join(self.form_names)}")
