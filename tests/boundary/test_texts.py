"""Texts of others have a limit and can be stored; progress is never cut."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import InlineRun, RetryLater
from harness.boundary.texts import bounded, error_text, storable
from harness.concurrency.kept_items import Quarantined
from harness.errors import ProgressTooLarge
from harness.progress import MAX_BYTES, Progress
from tests.jobs import CountByIteration

LONG = "x" * 140_000
AWKWARD = '\0\ud800\N{PILE OF POO}\\"é' * 20_000


class Loud(CountByIteration):
    """Fails with a long message, twice, and goes on."""

    error: Exception = ValueError(LONG)
    failed = 0

    def each_iteration(self, item: int, numbers: int) -> None:
        """Do one number, or fail."""
        if item and type(self).failed < 2 * item:
            type(self).failed += 1
            raise self.error
        super().each_iteration(item, numbers)


class Poisoned(CountByIteration):
    """Can do no number at all."""

    quarantine = True
    max_item_failures = 0

    def each_iteration(self, item: int, numbers: int) -> None:
        """Fail."""
        raise ValueError(f"{item}: {AWKWARD}")


@given(st.text(alphabet=st.characters(codec=None), max_size=300), st.integers(0, 400))
def test_a_text_is_cut_to_its_size_as_json_and_can_be_encoded(text: str, limit: int) -> None:
    """Any text is cut to its size and can be encoded; a text that fits is left as it is."""
    cut = bounded(text, limit)
    assert len(json.dumps(cut)) - 2 <= limit
    cut.encode()
    assert "\0" not in cut
    if len(json.dumps(storable(text))) - 2 <= limit:
        assert cut == storable(text)


def test_a_cut_text_keeps_its_head_and_tail_and_counts_the_rest() -> None:
    """A text cut a second time keeps its head, its tail and the count too, as when more items are set aside."""
    text = "begin" + "x" * 10_000 + "end"
    once = bounded(text, 1_000)
    twice = bounded(once, 300)
    for cut in (once, twice):
        head, number, tail = cut.split(" ... ")
        assert (head[:5], tail[-3:]) == ("begin", "end")
        assert int(number.split()[0][1:].replace(",", "")) == len(text) - len(head) - len(tail)


def test_a_text_without_utf_8_form_is_escaped() -> None:
    """NUL and lone surrogates become escapes, everything else stays."""
    assert storable("a\0b\udc80cé\N{PILE OF POO}") == "a\\x00b\\udc80cé\N{PILE OF POO}"


def test_an_error_whose_message_raises_is_told_all_the_same() -> None:
    """An error whose message raises is reported by its type."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert error_text(Mute()) == "Mute: (its message cannot be shown: RuntimeError)"
    assert error_text(ValueError("bad")) == "ValueError: bad"


@pytest.mark.parametrize("error", [ValueError(LONG), ValueError(AWKWARD)])
def test_a_long_error_message_does_not_keep_progress_from_being_saved(error: Exception) -> None:
    """The execution ends as with a short one; head and tail of the message are kept."""

    class Job(Loud):
        pass

    Job.error, Job.failed = error, 0
    inline = InlineRun(Job, 3)
    with pytest.raises(ValueError, match=re.escape(str(error)[:9])):
        inline.drain()
    progress = inline.progress
    assert progress is not None
    assert (progress.state, progress.done, progress.cursor) == ("failed", 1, 0)
    assert "characters left out" in (progress.reason or "")
    assert len(progress.to_json()) < 6_000


@pytest.mark.parametrize("reason", [LONG, AWKWARD, ValueError("no str")], ids=["long", "awkward", "error"])
def test_a_long_reason_does_not_keep_progress_from_being_saved(reason: Any) -> None:
    """Any reason that a job gives for its own stop can be saved."""

    class Job(CountByIteration):
        def each_iteration(self, item: int, numbers: int) -> None:
            raise RetryLater(0, reason)

    inline = InlineRun(Job, 3)
    assert inline.execute().outcome == "interrupted"
    assert inline.progress is not None
    assert len(inline.progress.to_json()) < 3_000


@pytest.mark.parametrize("answer", [LONG, AWKWARD, 17, ["busy"]], ids=["long", "awkward", "number", "list"])
def test_a_stop_source_may_answer_with_anything_that_is_true(answer: Any) -> None:
    """The answer is the reason, as text, and cut where it is stored."""
    inline = InlineRun(CountByIteration, 3, stops=[lambda at: answer])
    ended = inline.execute()
    progress = inline.progress
    assert progress is not None
    assert ended.reason == str(answer)
    assert progress.state == "interrupted"
    assert len(progress.to_json()) < 3_000


def test_a_hundred_items_with_the_longest_messages_are_set_aside() -> None:
    """They fit into the record, and the job completes."""
    inline = InlineRun(Poisoned, 100)
    inline.drain()
    progress = inline.progress
    assert progress is not None
    assert (progress.state, len(progress.quarantined)) == ("completed", 100)
    assert [each.cursor for each in progress.quarantined] == list(range(100))
    assert progress.quarantined[17].error.startswith("ValueError: 17: ")
    assert len(progress.to_json()) < MAX_BYTES / 2


@pytest.mark.sample(2)
@pytest.mark.parametrize("count", [1, 26, 100, 1_000])
def test_what_others_wrote_never_fills_the_record(count: int) -> None:
    """The errors of any number of items that are set aside leave room for a cursor of 40 kB."""
    progress = Progress("1", reason=AWKWARD, failure=LONG, step="each_iteration", cursor="c" * 40_000)
    progress.quarantined = [Quarantined(index, 3, AWKWARD) for index in range(count)]
    again = Progress.from_json("1", progress.to_json())
    assert again.cursor == progress.cursor
    assert again.to_json() == progress.to_json()


def test_progress_itself_is_never_cut() -> None:
    """A cursor or an attribute that is too large is refused by name."""
    with pytest.raises(ProgressTooLarge):
        Progress("1", step="load", cursor=LONG).to_json()
    with pytest.raises(ProgressTooLarge):
        Progress("1", attributes={"text": LONG}).to_json()
