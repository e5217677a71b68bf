"""The point that wrote a row is found by an index, whatever the number of rows and states."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.explore import Explorer, parse_trial
from tests.planted import effects, shop, totals


@pytest.fixture(autouse=True)
def _shop(tmp_path: Path) -> Iterator[None]:
    shop.open_shop(str(tmp_path / "shop.db"))
    yield
    shop.close_shop()


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "job", [effects.effect_before_commit, effects.commit_before_effect, totals.added_apart]
)
def test_a_row_was_written_at_the_state_after_which_it_is_as_before_the_crash(job: Any) -> None:
    """The row of a difference changes in the state that the index names, and in none from there to the crash."""
    looked = 0
    with Explorer(job, pairs=False, actions=["crash", "lost-reply"]) as explorer:
        recording = explorer.record()
        for trial in map(parse_trial, explorer.names()):
            state = recording.point(*trial.points[0]).state
            for difference in explorer.result(trial).differences:
                written = recording.written(difference, state)
                assert 0 <= written <= state
                rows = [recording.contents(each)[difference.table].rows for each in range(state + 1)]
                if written:
                    assert rows[written - 1] != rows[written]
                for later in range(written + 1, state + 1):
                    assert recording.written(difference, later) == written
                looked += 1
    assert looked
