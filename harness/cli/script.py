"""Script of the demos: acts, each with a form of a scenario, an interruption and a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

KILLED, BOTH, ASKED = "kill:horse", "kill:both", "signal:TERM"
DURABLE = "with_transaction()"


@dataclass(frozen=True)
class Act:
    """One run of a scenario in a demo.

    :ivar words: text shown before the run. :ivar where: time of the interruption.
    :ivar real: kind of interruption with real workers. :ivar embedded: kind if no process can be killed.
    :ivar unkilled: text shown instead of *words* if no process can be killed and *words* mention a kill.
    :ivar durability: replaces the durability of the job.
    """

    words: str
    form: str
    where: str
    real: str = ASKED
    embedded: str = ASKED
    unkilled: str = ""
    durability: str | None = None

    def said(self, *, real: bool) -> str:
        """Return the text to show before the run."""
        return self.words if real else self.unkilled or self.words

    def interruption(self, *, real: bool) -> str:
        """Return the name of the interruption."""
        kind = self.real if real else self.embedded
        return f"{kind}@{self.where}" if kind else self.where


@dataclass(frozen=True)
class Demo:
    """A demo.

    :ivar scenario: dotted name of the scenario. :ivar pace: seconds per item, for an audience.
    :ivar effect: one item and its effect, as in ``17 orders were paid twice``.
    :ivar takes_s: approximate seconds that it takes at that pace.
    """

    scenario: str
    intro: str
    effect: tuple[str, str]
    acts: tuple[Act, ...]
    pace: float
    takes_s: int
    outro: str


DEMOS: Mapping[str, Demo] = {
    "orders": Demo(
        "scenarios.orders",
        "61 orders must be paid. In the middle, a deploy interrupts the job.",
        ("orders", "paid"),
        (
            Act("The ordinary loop. It ignores signals, so it is killed at order 20. RQ starts it again at order 1.",
                "plain", "count:20", real=KILLED,
                unkilled="The ordinary loop. It ignores the signal, so it is ended at order 20, "
                "as at the end of a grace period. RQ starts it again at order 1."),
            Act("The same in steps. SIGTERM reaches the worker. The job stops at its next checkpoint, is requeued, and "
                "continues at order 21.", "steps", "count:20"),
            Act("By iteration, and without a warning: SIGKILL to the worker and its child, at order 33. Work and "
                "cursor are one transaction.", "iteration", "count:33", real="kill:both", embedded="",
                unkilled="By iteration, asked to stop at order 33. Work and cursor are one transaction, so even a "
                "crash would repeat nothing.", durability="with_transaction()"),
        ),
        0.1,
        35,
        "Next: harness demo reports, or with a Redis server: harness run scenarios.orders --broker redis "
        "--interrupt kill:both@count:20",
    ),
    "reports": Demo(
        "scenarios.reports",
        "50 customers, and a report that adds up the orders of each: nested, so the cursor is a pair of "
        "customer and order. If an order is counted twice, the total is wrong.",
        ("orders", "counted"),
        (
            Act("The loop, killed at 40 per cent and started again.", "plain", "progress:40%", real=KILLED,
                unkilled="The loop, ended at 40 per cent and started again."),
            Act("In steps, asked to stop at 40 per cent, in the middle of a customer.", "steps", "progress:40%"),
            Act("By iteration, killed at 60 per cent; the sum and the cursor are committed together.", "iteration",
                "progress:60%", real="kill:both", embedded="",
                unkilled="By iteration, asked to stop at 60 per cent; the sum and the cursor are committed together.",
                durability="with_transaction()"),
        ),
        0.05,
        50,
        "Each total was compared with one SQL aggregate over the same orders. Next: harness demo emails",
    ),
    "emails": Demo(
        "scenarios.emails",
        "250 mails in batches of 50, over real SMTP. No transaction covers a mail. But there can be few "
        "copies, and a receiver can recognise them.",
        ("recipients", "sent a mail"),
        (
            Act("The loop, killed at mail 120 and started again.", "plain", "count:120", real=KILLED,
                unkilled="The loop, ended at mail 120 and started again."),
            Act("In steps, asked to stop at mail 120: the batch is finished first.", "steps", "count:120"),
            Act("By iteration, killed in the middle of a batch. The batch is repeated, but the database marks "
                "every sent mail. So at most one mail is sent twice, with the same Message-ID.",
                "iteration", "count:230", real=KILLED, embedded="",
                unkilled="By iteration, asked to stop at mail 230, and again the batch is finished first. After a "
                "crash in a batch, the batch is repeated, but the database marks every sent mail. So at most one mail "
                "is sent twice, with the same Message-ID.", durability="every(items=50)"),
        ),
        0.026,
        40,
        "Next: harness demo compare, which puts everything into one report",
    ),
}  # fmt: skip

COMPARED = ("scenarios.orders", "scenarios.reports", "scenarios.emails")
QUEUES = ("rq", "celery", "dramatiq")
"""Queues that can be compared."""
QUEUED = ("scenarios.orders",)
"""Scenarios of the comparison of several queues."""
COMPARED_PACE = 0.008
COMPARED_TAKES_S = 150
"""Approximate duration of the comparison, in seconds."""
FAST_PACE = 0.002


def compared(*, real: bool) -> list[Act]:
    """Return the acts of the comparison, the same for each scenario."""
    acts = [Act("", form, "none", real="", embedded="") for form in ("plain", "steps", "iteration")]
    acts.append(Act("", "plain", "progress:40%", real=KILLED))
    for form in ("steps", "iteration"):
        acts.append(Act("", form, "progress:40%"))
        if real:
            acts.append(Act("", form, "progress:40%", real=KILLED, durability="with_transaction()"))
    return acts


def queued() -> list[Act]:
    """Return the acts of the comparison of several queues, the same for each queue."""
    places = (
        ("progress:40%", ASKED, None),
        ("progress:40%", KILLED, DURABLE),
        ("progress:60%", BOTH, DURABLE),
    )
    return [
        Act("", form, where, real=kind, durability=None if form == "plain" else durability)
        for where, kind, durability in places
        for form in ("plain", "steps", "iteration")
    ]
