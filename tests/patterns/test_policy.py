"""The policy of a job class: what its attributes take, names that are almost right, and what they do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from harness import ContinuableJob, InlineRun, IterationJob, RetryLater, attribute, every, times
from harness.errors import CancelJob, JobDefinitionError, UsageError
from harness.overrides import limit_runtime
from harness.stops import Every
from tests.jobs import CountByIteration, FailAt

NO_FLAGS: list[Any] = [0, 1, "yes", None]
NO_COUNTS: list[Any] = [True, -1, 1.5, "3", math.nan, timedelta(1), [1]]
NO_TIMES: list[Any] = [True, -1, -0.1, math.nan, "5", [5], timedelta(-1), Decimal(5)]

WRONG = [
    *(("durability", each) for each in [None, "every(seconds=1)", 1, every]),
    *(("max_resumptions", each) for each in NO_COUNTS),
    *(("max_crashes", each) for each in [*NO_COUNTS, None]),
    *(("max_item_failures", each) for each in [*NO_COUNTS, None]),
    *(("max_quarantined", each) for each in [*NO_COUNTS, None]),
    *(("resume_delay", each) for each in [*NO_TIMES, None, math.inf, 1e300, timedelta.max]),
    *(("error_delay", each) for each in [*NO_TIMES, None, math.inf]),
    *(("max_runtime", each) for each in [*NO_TIMES, 0, math.inf, 10**400]),
    *(("grace_period", each) for each in [*NO_TIMES, None]),
    *(("quarantine", each) for each in NO_FLAGS),
    *(("resume_at_front", each) for each in NO_FLAGS),
    *(("resume_errors_after_advancing", each) for each in NO_FLAGS),
    *(("resume_queue", each) for each in ["", " ", 17, ["slow"]]),
]
RIGHT = [
    *(("max_resumptions", each) for each in [None, 0, 7]),
    *(("resume_delay", each) for each in [0, 5, 0.5, Fraction(1, 2), timedelta(minutes=1)]),
    *(("error_delay", each) for each in [0, timedelta(0)]),
    *(("max_runtime", each) for each in [None, 0.1, timedelta(hours=2)]),
    *(("grace_period", each) for each in [0, math.inf, timedelta(seconds=20)]),
    *(("resume_queue", each) for each in [None, "slow"]),
    ("max_quarantined", 0),
]


def define(*bases: type, **members: Any) -> type[Any]:
    """Define a job that counts, with some members and bases of its own."""
    return type("Job", (*bases, CountByIteration), {"__module__": __name__, **members})


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_is_refused_when_the_class_is_defined(name: str, value: Any) -> None:
    """The value is refused on the class, on a mixin and on an abstract base."""
    with pytest.raises(JobDefinitionError, match=rf"Job\.{name}: got .*; it takes "):
        define(**{name: value})
    with pytest.raises(JobDefinitionError, match=rf"Job\.{name}: got "):
        define(type("Mixin", (), {name: value}))

    class Base(IterationJob, abstract=True):
        pass

    setattr(Base, name, value)
    with pytest.raises(JobDefinitionError, match=rf"Job\.{name}: got "):
        type("Job", (Base, CountByIteration), {"__module__": __name__})


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_set_on_the_class_later_is_refused_before_any_work(
    name: str, value: Any, done: list[object]
) -> None:
    """The value is refused when the job is run or enqueued."""
    job = define()
    setattr(job, name, value)
    with pytest.raises(JobDefinitionError, match=rf"Job\.{name}: got "):
        InlineRun(job, 3)
    assert done == []


@pytest.mark.parametrize(("name", "value"), RIGHT)
def test_a_right_value_works(name: str, value: Any, done: list[object]) -> None:
    """Policies accept numbers, times as timedelta, and None if there may be no limit."""
    InlineRun(define(**{name: value}), 3).drain()
    assert done == [0, 1, 2]


@pytest.mark.parametrize("value", [timedelta(seconds=1.5), 1.5])
def test_times_are_seconds_or_a_timedelta(value: Any) -> None:
    """Policy, every(), RetryLater and the process's own limit accept both."""
    inline = InlineRun(define(resume_delay=value), 5, stops=[Every(2)])
    assert inline.execute().delay == 1.5
    assert RetryLater(value).delay == 1.5
    assert every(seconds=value) == every(seconds=1.5)
    limit_runtime(value)
    limit_runtime(None)


@pytest.mark.parametrize("value", [True, "1", math.nan, timedelta(-1), None])
def test_what_is_no_time_is_refused_where_it_is_given(value: Any) -> None:
    """RetryLater and every() also refuse a wrong time before they do anything with it."""
    with pytest.raises(UsageError, match="RetryLater takes seconds of 0 or more"):
        RetryLater(value)
    with pytest.raises(JobDefinitionError, match="every"):
        every(seconds=value)


def test_a_runtime_as_timedelta_stops_the_job() -> None:
    """The job stops at the first checkpoint after that time, as with a number of seconds."""
    now = [0.0]

    class Slow(CountByIteration):
        max_runtime = timedelta(seconds=3)

        def each_iteration(self, item: int, numbers: int) -> None:
            now[0] += 2

    ended = InlineRun(Slow, 5, clock=lambda: now[0]).drain()
    assert [each.reason for each in ended] == ["max_runtime", "max_runtime", None]


def test_a_policy_may_be_a_property(done: list[object]) -> None:
    """A policy that is a property is checked when it is read, and progress is kept."""

    class Job(CountByIteration):
        limit: Any = timedelta(minutes=5)

        @property
        def max_runtime(self) -> Any:  # type: ignore[override]
            return self.limit

    InlineRun(Job, 3).drain()
    assert done == [0, 1, 2]
    Job.limit = "soon"
    with pytest.raises(JobDefinitionError, match=r"Job\.max_runtime: got 'soon'; it takes a time over 0"):
        InlineRun(Job, 3).drain()


# Names.


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("max_resumption", "max_resumptions"), ("max_resmuptions", "max_resumptions"),
        ("max_resumes", "max_resumptions"), ("grace_periode", "grace_period"), ("graceperiod", "grace_period"),
        ("period_grace", "grace_period"), ("resume_delays", "resume_delay"), ("resume_dalay", "resume_delay"),
        ("max_run_time", "max_runtime"), ("maxRuntime", "max_runtime"), ("runtime_max", "max_runtime"),
        ("max_runtimes", "max_runtime"), ("max_crash", "max_crashes"), ("max_crahses", "max_crashes"),
        ("max_quarantine", "max_quarantined"), ("max_item_failure", "max_item_failures"),
        ("resume_queues", "resume_queue"), ("max_job_runtime", "max_runtime"),
        ("job_iteration_max_job_runtime", "max_runtime"), ("max_iteration_runtime", "max_runtime"),
    ],
)  # fmt: skip
def test_a_name_almost_right_is_refused_with_the_right_one(name: str, right: str) -> None:
    """The name is refused on the class itself and on a mixin, whatever number it is set to."""
    for value in (3, None, timedelta(minutes=5)):
        with pytest.raises(JobDefinitionError, match=rf"Job\.{name} would be ignored; use {right}\b"):
            define(**{name: value})
    with pytest.raises(
        JobDefinitionError, match=rf"Job\.{name} \(from Mixin\) would be ignored; use {right}\b"
    ):
        define(type("Mixin", (), {name: 3}))


def test_the_names_of_flags_and_of_other_values() -> None:
    """A flag is meant only by True or False; durability by a durability; Rails' options by anything."""
    for name, value, right in [
        ("quarantined", True, "quarantine"), ("resume_errors_after_advance", False, "resume_errors_after_advancing"),
        ("resume_at_frontt", True, "resume_at_front"), ("durabilty", every(items=1), "durability"),
        ("resume_options", {"wait": 5}, "resume_delay, resume_queue and resume_at_front"),
    ]:  # fmt: skip
        with pytest.raises(JobDefinitionError, match=f"{name} would be ignored; use {right}"):
            define(**{name: value})


@pytest.mark.parametrize(
    "name",
    [
        "max_rows", "runtime", "delay", "total", "quarantined_rows", "grace", "period", "max_items", "max_errors",
        "max_attempts", "max_retries", "retry_delay", "retries", "max_duration", "timeout", "queue", "queue_name",
        "priority", "name", "batch_size", "max_failures", "max_age", "max_size", "max_time", "max_run", "error_rate",
        "error_log", "errors", "resumed", "durable", "stopped", "max_classes", "max_caches", "run_time", "max_delay",
        "result_queue", "max_batches", "max_changes", "session", "rejected", "cursor_column", "default_delay",
        "items_failed", "crashes", "max_resolution", "MAX_RUNTIME", "GRACE_PERIOD", "_max_runtime", "start_delay",
        "grace_days", "trial_period", "max_crates", "quarantines_path", "quarantined", "durations", "error_display",
    ],
)  # fmt: skip
def test_an_authors_own_attribute_is_none_of_our_business(name: str, done: list[object]) -> None:
    """An author's attribute is accepted, even if it shares words with a policy."""
    for value in (3, "text", [1], None, timedelta(1)):
        assert getattr(define(**{name: value}), name) == value
    assert getattr(define(**{name: attribute(default=3)})(), name) == 3


def test_a_name_almost_right_is_accepted_beside_the_right_one() -> None:
    """If the right name is there too, the other name is accepted as intended."""
    job = define(max_runtime=300, max_run_time=17)
    assert job.max_run_time == 17


def test_policy_of_iteration_jobs_is_refused_in_a_job_of_steps() -> None:
    """The policy would do nothing there; a base class shared by both kinds may have it."""

    def perform(self: Any) -> None: ...

    with pytest.raises(JobDefinitionError, match=r"Job\.quarantine is for iteration jobs; remove it"):
        type("Job", (ContinuableJob,), {"perform": perform, "quarantine": True})
    shared = type("Shared", (), {"quarantine": True})
    type("Job", (shared, ContinuableJob), {"perform": perform, "quarantined": True})


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("on_shutdwon", "on_shutdown"), ("on_completed", "on_complete"), ("on_cancelled", "on_cancel"),
        ("on_canceled", "on_cancel"), ("on_finish", "on_complete"), ("on_satrt", "on_start"),
        ("on_started", "on_start"), ("on_errors", "on_error"), ("on_resumed", "on_resume"),
        ("on_quarantined", "on_quarantine"), ("on_stop", "on_shutdown"), ("on_interrupt", "on_shutdown"),
        ("on_success", "on_complete"), ("shuold_stop", "should_stop"), ("should_stopp", "should_stop"),
        ("job_should_exit", "should_stop"), ("around_iteration", "around_iterate"),
        ("around_iterates", "around_iterate"), ("progres_store", "progress_store"),
    ],
)  # fmt: skip
def test_a_hook_almost_right_is_refused_with_the_right_name(name: str, right: str) -> None:
    """A hook whose name is almost right is refused, because it would never be called."""
    with pytest.raises(JobDefinitionError, match=rf"Job\.{name} would be ignored; use {right}\b"):
        define(**{name: lambda self: None})


def test_hooks_of_celery_are_refused_by_their_signatures() -> None:
    """A hook with a signature of Celery, or one that takes an error, is refused with the advice to use on_error."""
    for function in (lambda self, error: None, lambda self, exc, task_id, args, kwargs, einfo: None):
        with pytest.raises(JobDefinitionError, match=r"Job\.on_failure would be ignored; use on_error"):
            define(on_failure=function)


@pytest.mark.parametrize(
    "name",
    [
        "on_row", "on_order", "on_restart", "on_reset", "on_result", "on_retry", "on_item", "should_skip",
        "should_stop_at", "around_item", "each_item", "each_row", "start", "stop", "complete", "cancel", "error",
        "transactions", "performs", "steps", "resume", "shutdown", "build", "build_query", "iterate", "store",
        "on_starter", "is_in_transaction", "idempotent_key_of", "runtime", "max_runtime_of",
    ],
)  # fmt: skip
def test_an_authors_own_method_is_none_of_our_business(name: str) -> None:
    """An author's method is accepted, even if its name begins like a hook."""
    for function in (lambda self: None, lambda self, row: None, staticmethod(lambda: None)):
        assert vars(define(**{name: function}))[name] is function


def test_an_own_callback_with_other_parameters_is_accepted(done: list[object]) -> None:
    """Such as one for an HTTP client, called by the author."""
    job = define(on_success=lambda self, response: None, on_failure=lambda self, request, response: None)
    assert InlineRun(job, 2).drain()
    assert done == [0, 1]


# Construction.


def test_a_constructor_that_requires_arguments_is_refused() -> None:
    """The error comes when the class is defined, or before it runs if __init__ is made later; it says what to do."""

    def init(self: Any, import_id: int, *args: Any, flag: bool = False) -> None: ...

    with pytest.raises(
        JobDefinitionError, match=r"Job\.__init__ requires import_id, .* arguments in its methods"
    ):
        define(__init__=init)
    with pytest.raises(JobDefinitionError, match=r"Job\.__init__ requires import_id"):
        define(type("Mixin", (), {"__init__": init}))
    made = dataclass(define(__annotations__={"import_id": int}))
    with pytest.raises(JobDefinitionError, match=r"Job\.__init__ requires import_id"):
        InlineRun(made, 3)


class Counting(ContinuableJob):
    """Sets an attribute in its constructor, counts it up, and fails in its second step at first."""

    number = attribute(default=0)
    names: attribute[list[str]] = attribute(default=[])

    def __init__(self, number: int = 5) -> None:
        self.number = number
        self.names = ["init"]

    def perform(self) -> None:
        """Call the steps."""
        self.step("load")
        self.step("wait")

    def load(self) -> None:
        """Count up."""
        self.number += 1
        self.names.append("load")

    def wait(self) -> None:
        """Do nothing."""


def test_an_attribute_set_in_the_constructor_is_a_default() -> None:
    """An attribute set in the constructor is a default; a stored value takes precedence over it."""
    inline = InlineRun(Counting, stops=[lambda at: at.completed == ["load"] and at.step is None and "once"])
    assert inline.execute().outcome == "interrupted"
    assert inline.progress is not None
    assert inline.progress.attributes == {"number": 6, "names": ["init", "load"]}
    inline.stops.clear()
    assert inline.execute().outcome == "completed"
    assert inline.progress.attributes == {"number": 6, "names": ["init", "load"]}


# When and where the job continues.


@pytest.mark.parametrize(
    ("policy", "after_stop", "after_error"),
    [
        ({}, 0, 5),
        ({"resume_delay": 60}, 60, 60),
        ({"resume_delay": timedelta(seconds=2)}, 2, 5),
        ({"error_delay": 0}, 0, 0),
        ({"error_delay": timedelta(minutes=1), "resume_delay": 1}, 1, 60),
    ],
)
def test_an_error_waits_and_an_interruption_does_not(
    policy: dict[str, Any], after_stop: float, after_error: float
) -> None:
    """This is the default; after an error the longer of the two delays counts."""
    job = type("Job", (FailAt,), {"__module__": __name__, **policy})
    inline = InlineRun(job, 8, 3, stops=[Every(2)])
    ended = list(inline.executions())
    assert [(each.delay, each.after_error) for each in ended[:2]] == [
        (after_stop, False),
        (after_error, True),
    ]
    assert ended[-1].outcome == "completed"


def test_retry_later_says_its_own_delay_and_the_class_where() -> None:
    """A delay that is asked for is neither made longer nor shorter."""

    class Job(CountByIteration):
        resume_delay, resume_queue, resume_at_front = 60, "slow", True

        def each_iteration(self, item: int, numbers: int) -> None:
            raise RetryLater(timedelta(seconds=3)) if numbers else CancelJob

    ended = InlineRun(Job, 1).execute()
    assert (ended.delay, ended.queue, ended.at_front, ended.after_error) == (3, "slow", True, False)


def test_the_default_job_goes_on_where_it_was() -> None:
    """By default the job continues in its own queue, behind the others."""

    class Job(IterationJob):
        def build_enumerator(self, *, cursor: Any) -> Any:
            return times(5, cursor=cursor)

        def each_iteration(self, item: int) -> None: ...

    ended = InlineRun(Job, stops=[Every(2)]).execute()
    assert (ended.delay, ended.queue, ended.at_front) == (0, None, False)
