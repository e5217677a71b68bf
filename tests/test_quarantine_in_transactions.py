"""An item that keeps failing, where several items share a commit with the cursor."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from harness import run, with_transaction
from tests import test_transactions as transactions

engine = transactions.engine


@pytest.mark.parametrize("size", [1, 3])
def test_the_item_that_failed_is_set_aside_and_no_other(engine: sa.Engine, size: int) -> None:
    """Though its whole group was rolled back at first: from then on each item is committed by itself."""

    class Job(transactions.ByIteration):
        quarantine = True
        max_item_failures = 2

    def fail(_: Any) -> None:
        raise ValueError("poison")

    transactions.Work.told[4] = fail
    progress = run(Job, 9, durability=with_transaction(items=size))
    assert transactions.effects() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert [(each.cursor, each.failures) for each in progress.quarantined] == [(4, 3)]
    assert progress.state == "completed"
