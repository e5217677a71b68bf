"""Stated times of the demos, and lines of ``harness run`` that fit a terminal of 80 columns."""

from __future__ import annotations

import re

import pytest

from harness.cli.demo import demo as command
from harness.cli.script import COMPARED_TAKES_S, DEMOS
from harness.cli.shows import READING_SECONDS
from harness.cli.trials import line
from harness.web.stage import ITEMS as ITEMS_ON_PAGE
from harness.web.stage import PACE as PACE_ON_PAGE
from tests.commands import harness
from tests.documents import ROOT
from tests.jobs import DONE, CountByIteration


class StopsForLong(CountByIteration):
    """Stops once, with a reason that is long."""

    def should_stop(self) -> str | None:
        """Return the reason before the second item."""
        return (
            "because of " + "one thing and another, " * 9
            if self.execution.items == 1 and not DONE[1:]
            else None
        )


ITEMS = {"orders": 61, "reports": 194, "emails": 250}
STARTING_S = 2.0
"""Seconds that a worker takes at most to start and to come back, on a quiet machine."""


@pytest.mark.parametrize("name", DEMOS)
def test_a_demo_takes_as_long_as_is_stated(name: str) -> None:
    """Pauses for the reader and the pace of all items add up to the stated time, without and with slow starts."""
    shown, items = DEMOS[name], ITEMS[name]
    done = 0
    for act in shown.acts:
        at = re.fullmatch(r"(count|progress):(\d+)%?", act.where)
        assert at is not None
        before = int(at[2]) if at[1] == "count" else items * int(at[2]) // 100
        done += items + (before if act.form == "plain" else 0)
    least = READING_SECONDS * (1 + len(shown.acts)) + shown.pace * done
    assert least <= shown.takes_s <= least + STARTING_S * len(shown.acts) + 2


def test_all_pages_state_the_same_times() -> None:
    """The help of the command and the guide for presenters state the times of the script."""
    times = {name: shown.takes_s for name, shown in DEMOS.items()} | {"compare": COMPARED_TAKES_S}
    stated = re.findall(r"(\w+) \((\d+) s\)", command.help or "")
    assert {name: int(seconds) for name, seconds in stated} == times
    guide = " ".join((ROOT / "docs" / "presenting.md").read_text(encoding="utf-8").split())
    assert f"`harness demo orders` shows the same in about {times['orders']} s" in guide
    assert f"`harness demo reports` ({times['reports']} s)" in guide
    assert f"`harness demo emails` ({times['emails']} s)" in guide
    assert f"puts all three into a report ({times['compare']} s)" in guide


def test_the_script_of_the_page_fits_its_demo() -> None:
    """Each button that the script names is there at that time, and the jobs end when it reads the cards."""
    guide = (ROOT / "docs" / "presenting.md").read_text(encoding="utf-8")
    script = guide.partition("## On the page")[2].partition("\n## ")[0]
    spoken = {
        text: 60 * int(minutes) + int(seconds)
        for minutes, seconds, text in re.findall(r"\*\*(\d):(\d\d)\*\* ((?:.|\n(?!\n))+)", script)
    }
    lasts_s = ITEMS_ON_PAGE * PACE_ON_PAGE
    assert sum("**Kill" in text or "**Deploy" in text for text in spoken) == 3
    for text, at in spoken.items():
        if "**" in text:
            assert at < lasts_s - 10, text
        if "all three finish" in text:
            assert lasts_s + 10 <= at <= lasts_s + 30, text


def test_a_demo_states_the_number_of_its_items() -> None:
    """The introduction of each demo names as many items as it has."""
    assert f"{ITEMS['orders']} orders" in DEMOS["orders"].intro
    assert f"{ITEMS['emails']} mails" in DEMOS["emails"].intro


@pytest.mark.parametrize(
    "interruption", ["none", "kill:both@progress:60%", "signal:TERM@step:process", "x" * 200]
)
@pytest.mark.parametrize("number", [0, 10**9])
def test_a_record_fits_the_terminal(interruption: str, number: int) -> None:
    """No line of a record is wider than 80 columns, whatever its names and numbers."""
    counts = dict.fromkeys(("executions", "items", "lost", "duplicated", "repeated"), number)
    record = {
        "scenario": "a-long-name-of-a-scenario", "pattern": "iteration", "interruption": interruption,
        "verdict": "exactly once", **counts,
    }  # fmt: skip
    shown = line(record).splitlines()
    assert max(map(len, shown)) <= 80
    assert "".join(line(record).split()).count("exactlyonce") == 1


def test_an_inline_run_fits_the_terminal() -> None:
    """A job whose reason for a stop is long is told in lines of 80 columns."""
    result = harness("run", "tests.cli.test_demo_times:StopsForLong", "3")
    assert max(map(len, result.output.splitlines())) <= 80
    assert "because" in result.output
