"""The table of queues side by side."""

from __future__ import annotations

from typing import Any

from harness import report
from harness.report import Comparison, comparison
from harness.report.queues import queues
from tests.comparisons import ENVIRONMENT, run
from tests.report.test_render import Page

KILL, TERM = "kill:both@progress:60%", "signal:TERM@progress:40%"


def of_queues(*names: str) -> Comparison:
    """Give a comparison with a kill and a signal on each queue; on Dramatiq the plain form never comes back."""
    records = []
    for queue in names:
        services = {"queue": queue, "broker": "redis"}
        lost = {"completed": False, "lost": 24, "duplicated": 0, "verdict": "never finished", "executions": 1}
        more: dict[str, Any] = lost if queue == "dramatiq" else {}
        records += [
            run(pattern="plain", interruption=KILL, **services, **more),
            run(pattern="steps", interruption=KILL, resume_latency_s=1.5, **services),
            run(pattern="steps", interruption=TERM, stop_latency_s=0.25, **services),
            run("emails", "steps", TERM, stop_latency_s=0.75, **services),
        ]
    return comparison(ENVIRONMENT, records)


def test_queues_are_side_by_side() -> None:
    """Each interruption has a part; a form has a row for each queue, with its worst times over all scenarios."""
    table = queues(of_queues("rq", "celery", "dramatiq"))
    assert table is not None
    assert [part.title for part in table.parts] == [KILL, TERM]
    rows = [[cell.text for cell in row[:7]] for row in table.parts[1].rows]
    assert rows == [
        ["steps", queue, "exactly once", "2", "0", "750 ms", "6.0 ms"]
        for queue in ("RQ, redis", "Celery, redis", "Dramatiq, redis")
    ]
    outcomes = [(row[0].text, row[1].text, row[2].text) for row in table.parts[0].rows]
    assert ("plain", "Dramatiq, redis", "never finished") in outcomes
    assert ("plain", "Celery, redis", "duplicated") in outcomes


def test_a_single_queue_has_no_such_table() -> None:
    """With one queue there is nothing to set side by side, whichever it is."""
    for queue in ("rq", "celery"):
        assert queues(of_queues(queue)) is None
        assert "Queues side by side" not in report.markdown(of_queues(queue))


def test_only_interruptions_of_several_queues_count() -> None:
    """An interruption that one queue alone has is no comparison of queues."""
    one = run(pattern="steps", interruption="count:20")
    made = comparison(ENVIRONMENT, [one, *(_record(queue) for queue in ("rq", "celery"))])
    table = queues(made)
    assert table is not None
    assert [part.title for part in table.parts] == [TERM]


def test_all_outputs_have_the_table() -> None:
    """The page, Markdown and the terminal have a row for each queue; the terminal needs 80 columns."""
    made = of_queues("rq", "celery", "dramatiq")
    seen, told, text = Page(report.html(made)).seen, report.markdown(made), report.text(made)
    assert "Queues side by side" in seen
    assert "Queues side by side" in told
    assert f"{KILL}:" in text
    for each in ("RQ, redis", "Celery, redis", "Dramatiq, redis"):
        assert all(each in output for output in (seen, told, text))
    assert max(map(len, text.splitlines())) <= 80


def test_runs_of_two_queues_are_no_group() -> None:
    """The matrix and the timelines keep the queues apart, also on one broker."""
    assert {group.queue for group in of_queues("rq", "celery").groups} == {"rq", "celery"}
    assert "Celery: redis, sqlite" in Page(report.html(of_queues("rq", "celery"))).seen


def _record(queue: str) -> dict[str, object]:
    return run(pattern="steps", interruption=TERM, queue=queue, broker="redis")
