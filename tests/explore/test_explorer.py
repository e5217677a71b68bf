"""The explorer: what it tries, what it says, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from harness import mark, on_stop
from harness.errors import UsageError
from harness.explore import Explorer, PlannedTrial, explore, parse_trial
from harness.explore.explorer import SAMPLE
from tests.commands import harness, one_line
from tests.explore.receiver import receiving
from tests.planted import cursors, effects, endings, shop, totals

SENT: list[str] = []


@pytest.fixture(autouse=True)
def _shop(tmp_path: Path) -> Iterator[None]:
    shop.open_shop(str(tmp_path / "shop.db"))
    SENT.clear()
    yield
    shop.close_shop()


def marked() -> None:
    """Pay every invoice again in each attempt, and say which."""
    with shop.session() as session:
        for invoice_id in shop.all_ids(session):
            mark(f"invoice {invoice_id}")
            session.add(shop.Payment(invoice_id=invoice_id, cents=1))
            session.commit()


def told() -> None:
    """Report every invoice to another object of this process."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            SENT.append(f"invoice {invoice.id}")
            shop.pay_once(session, invoice.id)


def posts(address: str) -> None:
    """Post every invoice to a server, and mark it a moment later."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            connection = HTTPConnection(address)
            connection.request("POST", f"/invoices/{invoice.id}", body=b"1")
            connection.getresponse().read()
            connection.close()
            shop.pay_once(session, invoice.id)


@pytest.fixture
def address() -> Iterator[str]:
    """Yield where a server listens."""
    with receiving(SENT) as found:
        yield found


def fails() -> None:
    """Fail."""
    shop.all_ids(shop.session())
    raise LookupError("no such shop")


def idle() -> None:
    """Do nothing outside."""


def reads() -> None:
    """Change nothing."""
    with shop.session() as session:
        shop.all_ids(session)


def says_so(verdict: Any) -> str:
    """Return the first finding as it is shown."""
    return str(verdict.worst)


def test_points_between_which_nothing_reached_the_outside_are_one() -> None:
    """There is one crash for each state of the outside: the first, and one after each of eight commits that wrote."""
    with Explorer(effects.effect_with_commit, actions=["crash"], pairs=False) as explorer:
        verdict = explorer.run()
        points = explorer.record().points
    assert verdict.trials["crash"] == verdict.states == shop.INVOICES + 1
    assert len(points) > 40
    assert {point.kind for point in points} == {
        "before-statement", "statement", "before-commit", "commit", "end",
    }  # fmt: skip


def test_every_sort_of_interruption_is_tried() -> None:
    """Crashes, polite stops at every checkpoint, lost answers, freezes and pairs."""
    verdict = explore(cursors.CursorAfterEffect)
    assert verdict.good
    assert verdict.trials["stop"] == shop.INVOICES
    assert verdict.trials["crash"] == verdict.tried == verdict.states
    assert verdict.trials["lost-reply"] == verdict.states - 1
    assert verdict.trials["pair"] == SAMPLE < verdict.planned["pair"]
    assert verdict.lines == verdict.all_lines > 0


def test_one_seed_gives_one_sequence_of_trials_and_findings() -> None:
    """Another seed gives another sample."""

    def tried(seed: int) -> Any:
        names: list[str] = []
        verdict = explore(
            effects.effect_before_commit, seed=seed, sample=3, progress=lambda *args: names.append(args[2])
        )
        return names, list(map(str, verdict.findings))

    first = tried(1)
    assert first == tried(1)
    assert first[0] != tried(2)[0]


def test_a_finding_names_item_lines_and_the_way_to_see_it_again() -> None:
    """And that way shows it."""
    verdict = explore(marked, first=True)
    finding = verdict.worst
    assert finding is not None
    assert finding.item == "invoice 1"
    assert "invoice_id=1" in finding.what
    assert finding.lines[0].startswith("tests/explore/test_explorer.py:")
    assert finding.command == f"harness explore tests.explore.test_explorer:marked --trial {finding.trial}"
    assert says_so(explore(marked, only=finding.trial)) == str(finding)


def test_it_stops_at_the_first_finding_where_asked() -> None:
    """The first is a crash: the smallest interruption."""
    verdict = explore(effects.effect_before_commit, first=True)
    assert len(verdict.findings) == 1
    assert sum(verdict.trials.values()) < verdict.states


def test_progress_is_told_after_each_trial() -> None:
    """The progress counts the trials done of all that will run, samples included."""
    told_so: list[tuple[int, int, str]] = []
    explore(endings.done_at_the_end, sample=4, progress=lambda *args: told_so.append(args))
    assert [done for done, _, _ in told_so] == list(range(1, len(told_so) + 1))
    assert all(planned >= done for done, planned, _ in told_so)
    assert told_so[-1][0] == told_so[-1][1]


def test_repetitions_within_the_durability_are_its_price() -> None:
    """Nothing is lost, and no more items are repeated than were begun since the last save."""
    verdict = explore(MarkedInSteps, durability=on_stop(), actions=["crash", "stop"], pairs=False)
    assert verdict.verdict == f"at least once, repeated ≤ {shop.INVOICES}"
    assert all(" --durability 'on_stop()' --trial " in finding.command for finding in verdict.findings)
    verdict = explore(MarkedInSteps, actions=["crash", "stop"], pairs=False)
    assert verdict.verdict == "at least once, repeated ≤ 1"
    assert {finding.trial.partition(":")[0] for finding in verdict.findings} == {"crash"}


class MarkedInSteps(cursors.InSteps):
    """Pays every invoice after the cursor, in a transaction that knows nothing of the cursor."""

    def pay(self, step: Any) -> None:
        """Pay the invoices."""
        for invoice_id in shop.all_ids(self.session):
            if invoice_id > (step.cursor or 0):
                mark(f"invoice {invoice_id}")
                self.session.add(shop.Payment(invoice_id=invoice_id, cents=1))
                self.session.commit()
                step.set(invoice_id)


def test_objects_that_stand_for_the_outside_are_compared() -> None:
    """A test's double is restored for each trial, and its members count."""
    verdict = explore(told, witnesses={"told": SENT}, actions=["crash", "lost-reply"])
    assert verdict.verdict == "duplicated"
    assert "told: invoice 1, 2 times" in says_so(verdict)
    assert SENT == [], "afterwards all is as it was"


def test_requests_over_http_are_effects(address: str) -> None:
    """Each is a crash point, and one that is sent twice is found."""
    verdict = explore(posts, address, actions=["crash", "lost-reply"], pairs=False)
    assert verdict.verdict == "duplicated"
    assert f"requests: POST http://{address.partition(':')[0]}/invoices/1, 2 times" in says_so(verdict)
    assert verdict.trials["lost-reply"] > shop.INVOICES


def test_a_server_that_knows_what_it_has_got_makes_it_once(address: str) -> None:
    """The outcome is then what the server says."""
    verdict = explore(posts, address, witnesses={"server": SENT}, outcome=lambda: set(SENT), sample=5)
    assert verdict.good, verdict.text()


def test_the_outcome_may_be_the_users() -> None:
    """Values that the outcome leaves out are not compared."""
    assert explore(marked, outcome=lambda: None, sample=5).good
    assert not explore(marked, outcome=lambda left: len(left["payments"].rows), sample=5).good


@pytest.mark.parametrize(
    "job", [effects.effect_with_commit, pytest.param(cursors.CursorAfterEffect, marks=pytest.mark.full)]
)
def test_on_rq_a_correct_job_passes(job: Any) -> None:
    """RQ's worker runs it in this process, and dies at RQ's own commands to Redis, too."""
    verdict = explore(job, queue="rq", sample=8)
    assert verdict.good, verdict.text()
    assert verdict.planned["crash"] > 20


def test_on_rq_a_mistake_is_found() -> None:
    """As inline."""
    verdict = explore(effects.effect_before_commit, queue="rq", sample=4)
    assert verdict.verdict == "duplicated", verdict.text()


def test_on_rq_with_a_real_redis_the_verdicts_are_the_same(broker: Redis, redis_url: str) -> None:
    """The server named on the command line is the broker, is empty afterwards, and is refused if it is not before."""
    right, wrong = "tests.planted.effects:effect_with_commit", "tests.planted.effects:effect_before_commit"
    on_redis = ["--queue", "rq", "--redis", redis_url, "--sample", "3"]
    assert (
        harness("explore", right, *on_redis).exit_code,
        harness("explore", wrong, *on_redis).exit_code,
    ) == (0, 1)
    assert broker.dbsize() == 0
    broker.set("of", "somebody")
    assert "the Redis of redis= is not empty" in one_line(harness("explore", right, *on_redis))
    assert broker.keys() == [b"of"]


def test_a_job_that_fails_by_itself_is_refused() -> None:
    """Its error is the cause."""
    with pytest.raises(
        UsageError,
        match=r"fails even without an interruption: LookupError: no such shop, at tests/explore/test_explorer.py:\d+",
    ) as failed:
        explore(fails)
    assert isinstance(failed.value.__cause__, LookupError)


def test_a_job_that_does_nothing_outside_is_refused() -> None:
    """There is nothing to find."""
    with pytest.raises(UsageError, match="accesses no external state, so there is no crash point"):
        explore(idle)


def test_a_job_that_leaves_nothing_outside_is_refused() -> None:
    """Else an empty table would pass for exactly once."""
    with pytest.raises(UsageError, match="changes no external state except its progress"):
        explore(reads)


def test_what_is_taken_away_again_is_explored() -> None:
    """A job without invoices to pay leaves nothing, but a death leaves its lock."""
    endings.lock_taken_over()
    assert explore(endings.lock_left_behind).verdict == "error on resume"


def test_findings_of_the_same_lines_are_told_once() -> None:
    """With how many more there are; the trial to repeat is that of the smallest interruption."""
    verdict = explore(marked, sample=12)
    worst, told = verdict.worst, verdict.text(shown=2).splitlines()
    assert worst is not None
    alike = [each for each in verdict.findings if (each.verdict, each.lines) == (worst.verdict, worst.lines)]
    assert told[2] == f"  {worst}; and {len(alike) - 1} more trials there"
    assert sum("again: " in line for line in told) == 2
    assert told[-2].endswith("more findings")
    assert told[-1] == "  compared: invoices, payments, totals"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"actions": ["burn"]}, "use switch, order, crash, stop, lost-reply, cancel, freeze, twice"),
        ({"queue": "sqs"}, "use inline, rq"),
        ({"only": "crash:commit"}, "unknown trial 'crash:commit'; use crash:KIND#N"),
        ({"only": "crash:commit#99"}, "there is no crash point commit#99; the job passes .*commit#1 to #8"),
        ({"only": "stop:commit#1+commit#2"}, "unknown trial"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    """Saying what is allowed."""
    with pytest.raises(UsageError, match=message):
        explore(effects.effect_with_commit, **options)


def test_trials_are_named_and_found_by_name() -> None:
    """The name is the same on the command line, in ids and in findings."""
    for name in ("crash:commit#12", "crash:commit#12+save#3", "stop:checkpoint#7", "lost-reply:mail#1"):
        assert str(parse_trial(name)) == name
    assert parse_trial("freeze:before-commit#2") == PlannedTrial("freeze", (("before-commit", 2),))


def test_a_total_kept_in_memory_needs_no_crash_to_be_lost() -> None:
    """A polite stop is enough, and the verdict names it."""
    verdict = explore(totals.TotalInMemory, actions=["stop"])
    assert verdict.verdict == "wrong total"
    assert str(verdict.worst).startswith("wrong total: stopped ")
