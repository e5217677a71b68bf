"""Story as text for a terminal, 80 columns wide."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap
from typing import TYPE_CHECKING

from harness.boundary.texts import printable

if TYPE_CHECKING:
    from harness.monitor.story import Part, Story

WIDTH = 80
BAR = 44
"""Columns of the time axis."""
SHOWN = 12
"""Maximum number of drawn executions; of more, the first and the last are drawn."""
DARK, LIGHT = "█", "·"


def text(story: Story) -> str:
    """Return a story as text."""
    return "\n".join(printable(line)[:WIDTH].rstrip() for line in _lines(story))


def counted(number: int, word: str) -> str:
    """Return a number with its word, in the singular or plural."""
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def seconds(value: float) -> str:
    """Return a duration in a readable unit."""
    if value < 10:
        return f"{value:.2f} s"
    if value < 120:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def headline(story: Story) -> str:
    """Return the story in one sentence."""
    # A completed job is complete: items that a crash left uncounted were not selected again.
    whole = story.total is None or story.total == story.done or story.state == "completed"
    of = "" if whole else f" of {story.total:,}"
    executions = counted(story.parts[-1].epoch, "execution")
    did = f"{story.done:,}{of} items" if of else counted(story.done, "item")
    return f"{story.state}: {did} in {executions}, {seconds(story.total_s)}"


def failed_by_queue(failure: str) -> str:
    """Return the reason why a job failed, if no execution records one."""
    return f"failed by its queue: {failure}"


def how(part: Part) -> str:
    """Return the end of an execution and its reason."""
    return (
        f"{_outcome(part)}: {part.reason}" if part.reason and part.reason != part.outcome else _outcome(part)
    )


def _outcome(part: Part) -> str:
    """Return the outcome in the words of the other pages; the data has different names."""
    return "crashed" if part.outcome == "died" else part.outcome


def detail(part: Part) -> str:
    """Return the text about the work of an execution."""
    did = (
        "its progress is unknown"
        if part.items is None
        else f"{counted(part.items, 'item')} in {seconds(part.lasted_s)}"
    )
    told = [did]
    if part.repeated or part.after_crash:
        told.append(again(part))
    if part.unnoticed_s:
        told.append(f"the previous crash was detected after {seconds(part.unnoticed_s)}")
    if part.waited_s >= 0.01:
        told.append(f"waited {seconds(part.waited_s)}")
    return ", ".join(told)


def again(part: Part) -> str:
    """Return the text about the repeated items of an execution, without claiming more than is known.

    The last sign of life before a crash is up to a second old. Only the durability bounds the work after it.
    """
    if not part.after_crash:
        return f"{part.repeated:,} of them again"
    most = part.repeated_at_most
    if most is not None:
        return f"up to {counted(max(most, part.repeated), 'item')} again"
    if part.repeated:
        return f"at least {part.repeated:,} of them again, and up to 1 item in progress"
    return "up to 1 item again, and items of its last second"


def limits(story: Story) -> str:
    """Return the explanation of what the numbers of a story cannot show; empty if they show everything."""
    if not any(part.after_crash or part.outcome == "died" for part in story.parts):
        return ""
    return (
        "After a crash, this page counts whole items up to the last sign of life, which is up to a second "
        "old. The item in progress (a batch, or a step without a cursor) is done again from its start. Its "
        "effects may already have happened; they are not counted here. with_transaction() rolls back those "
        "in its database."
    )


def where_time_went(story: Story) -> list[tuple[str, float]]:
    """Return the use of the whole time as pairs of text and seconds."""
    shares = [
        ("at work", story.working_s - story.repeated_s),
        ("repeating items", story.repeated_s),
        ("waiting in the queue", story.waiting_s),
        ("crash not yet detected", story.unnoticed_s),
    ]
    return [(words, value) for words, value in shares if value > 0]


def _lines(story: Story) -> Iterator[str]:
    yield f"{story.description} ({story.job_id})"
    yield headline(story)
    if story.failure:
        yield from wrap(failed_by_queue(story.failure), WIDTH, subsequent_indent="  ")
    yield ""
    if story.forgotten:
        yield f"   {counted(story.forgotten, 'earlier execution')}: no longer recorded"
    yield _axis(story.total_s)
    parts = story.parts
    if len(parts) > SHOWN:
        half = SHOWN // 2
        for part in parts[:half]:
            yield from _told(part, story)
        yield f"     … {len(parts) - 2 * half:,} more executions; --json shows all of them …"
        parts = parts[-half:]
    for part in parts:
        yield from _told(part, story)
    yield ""
    yield "where the time went"
    whole = story.total_s or 1.0
    for words, value in where_time_went(story):
        yield f"  {words:22} {seconds(value):>12} {value / whole:5.0%}"
    if said := limits(story):
        yield ""
        yield from wrap(said, WIDTH)


def _axis(total: float) -> str:
    end = seconds(total)
    return f"     0{end:>{BAR - 1}}"


def _told(part: Part, story: Story) -> Iterator[str]:
    whole = story.total_s or 1.0
    left = min(BAR - 1, int(part.start_s / whole * BAR))
    right = max(left + 1, min(BAR, round(part.end_s / whole * BAR)))
    waited = min(left, max(0, round((part.waited_s + part.unnoticed_s) / whole * BAR)))
    bar = " " * (left - waited) + LIGHT * waited + DARK * (right - left)
    lane = f"{part.epoch:4} {bar:{BAR}} {how(part)}"
    fits = len(lane) <= WIDTH
    yield lane if fits else f"{part.epoch:4} {bar:{BAR}} {_outcome(part)}"
    words = detail(part) if fits else f"{part.reason}; {detail(part)}"
    yield from wrap(words, WIDTH, initial_indent=" " * 5, subsequent_indent=" " * 5)
