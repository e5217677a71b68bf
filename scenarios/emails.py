"""Send a campaign's mails over SMTP, in batches of 50 to a connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlalchemy.orm import Session

from harness import ContinuableJob, Enumerator, IterationJob, Step, batches
from harness.scenario import Effects, Scenario
from scenarios import services
from scenarios.database import clear, count, create, fill, ids
from scenarios.models import EmailDelivery
from scenarios.seed import CAMPAIGN

if TYPE_CHECKING:
    from harness.lab.mailbox import Mailbox

BATCH_SIZE = 50


def plain(delivery_ids: list[int]) -> None:
    """Plain loop over the mails that were pending when the job was enqueued."""
    with services.session() as session:
        for start in range(0, len(delivery_ids), BATCH_SIZE):
            batch = delivery_ids[start : start + BATCH_SIZE]
            mails = [session.get_one(EmailDelivery, delivery_id) for delivery_id in batch]
            send(session, mails, lambda _: uuid4().hex)


def send(session: Session, deliveries: Sequence[EmailDelivery], key: Callable[[int], str]) -> None:
    """Send a batch over one connection; each mail is committed as sent, so that a crash repeats at most one."""
    with services.open_smtp() as smtp:
        for delivery in deliveries:
            services.send_mail(smtp, session, delivery, key(delivery.id))


class EmailsInSteps(ContinuableJob):
    """Job with one step; its cursor is the id of the last mail of the last sent batch."""

    def perform(self) -> None:
        """Run in every execution."""
        with services.session() as self.session:
            self.step("send")

    def send(self, step: Step) -> None:
        """Send the batches after the cursor."""
        pending = EmailDelivery.pending(CAMPAIGN)
        if step.total is None:
            step.total = count(self.session, pending)
        for batch, cursor in batches(self.session, pending, cursor=step.cursor, batch_size=BATCH_SIZE):
            send(self.session, batch, self.idempotency_key)
            step.set(cursor, items=len(batch))


class EmailsByIteration(IterationJob):
    """Job with one iteration per batch."""

    @contextmanager
    def around_iterate(self) -> Iterator[None]:
        """Hold a session open for an execution."""
        with services.session() as self.session:
            yield

    def build_enumerator(self, *, cursor: Any) -> Enumerator[list[EmailDelivery]]:
        """Read the pending mails after the cursor in batches."""
        return batches(self.session, EmailDelivery.pending(CAMPAIGN), cursor=cursor, batch_size=BATCH_SIZE)

    def each_iteration(self, batch: list[EmailDelivery]) -> None:
        """Send one batch."""
        send(self.session, batch, self.idempotency_key)


def judge(mailbox: Mailbox) -> Effects:
    """Compare the campaign with the mails that the SMTP server received, with and without duplicates."""
    with services.session() as session:
        wanted = set(session.scalars(EmailDelivery.recipients(CAMPAIGN)))
        pending = session.scalars(EmailDelivery.pending(CAMPAIGN)).first()
    return Effects(
        lost=len(wanted - set(mailbox.at_the_door)),
        duplicated=sum(times > 1 for times in mailbox.at_the_door.values()),
        duplicated_by_key=sum(times > 1 for times in mailbox.by_key.values()),
        checks={
            "every mail is marked as sent": pending is None,
            "no other mail was sent": wanted >= set(mailbox.at_the_door),
        },
    )


scenario = Scenario(
    name="emails",
    forms={"plain": plain, "steps": EmailsInSteps, "iteration": EmailsByIteration},
    seed=fill,
    clear=clear,
    arguments=lambda: ids(EmailDelivery.pending(CAMPAIGN)),
    count=lambda: len(ids(EmailDelivery.pending(CAMPAIGN))),
    judge=judge,
    close=services.dispose,
    items_per_checkpoint=BATCH_SIZE,
    create=create,
    statuses=EmailDelivery.statuses,
)
