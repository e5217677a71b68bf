"""A job is interrupted in one version of the code and resumed in another: what is lost or doubled is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.cursor import decode, encode, types_standing_in
from harness.errors import CorruptProgress, UsageError
from harness.explore import Explorer, Verdict, parse_trial
from harness.explore import explore as explored
from tests.commands import harness, one_line
from tests.planted import shop, versions, versions_2
from tests.planted.versions import Pay, PayFromPlace, PayFromRecords, charge

SAMPLE = 6
REFUSED = "refused, nothing lost"


@pytest.fixture(autouse=True)
def _shop(tmp_path: Path) -> Iterator[None]:
    shop.open_shop(str(tmp_path / "shop.db"))
    versions.store().create()
    yield
    shop.close_shop()


DEPLOYS: list[tuple[Any, Any, str]] = [
    (Pay, Pay, "exactly once"),
    (Pay, versions_2.Pay, "exactly once"),
    (Pay, versions_2.Renamed, REFUSED),
    (Pay, versions_2.RenamedTooLate, "duplicated"),
    (Pay, versions_2.Includes, "duplicated"),
    (Pay, versions_2.Counts, "lost"),
    (PayFromPlace, versions_2.PayFromPlace, REFUSED),
    (PayFromRecords, versions_2.Restricted, "exactly once"),
    (PayFromRecords, versions_2.Backwards, REFUSED),
    (Pay, versions_2.ByIteration, REFUSED),
    (charge, versions_2.charge_again, "exactly once"),
    (charge, versions_2.charge, "duplicated"),
]


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("old", "new", "verdict"), DEPLOYS, ids=lambda value: getattr(value, "__qualname__", "")
)
def test_a_deploy_is_judged(old: Any, new: Any, verdict: str) -> None:
    """The verdict is that of the outcome when the new version resumes a job that the old one began."""
    found = explored(old, deploy=new, sample=SAMPLE, pairs=False, actions=["crash", "stop"])
    assert found.verdict == verdict, found.text()
    assert found.text().startswith(
        f"{found.job}, resumed by {new.__module__}:{new.__qualname__}: {verdict}\n"
    )
    assert found.good is (verdict in {"exactly once", REFUSED})


def test_a_frozen_worker_of_the_old_version_may_wake_up() -> None:
    """Both versions are at work at a time, as in a rolling deploy; pairs of crashes and lost answers are tried too."""
    found = explored(Pay, deploy=versions_2.Pay, sample=3)
    assert found.good, found.text()
    assert {action for action, times in found.trials.items() if times} == {
        "crash", "stop", "lost-reply", "freeze", "twice", "pair",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "trials"),
    [
        # The second one stands still inside the new version, while the first reads cursors of the old one's type.
        (PayFromPlace, versions_2.PayFromPlace, ["twice:before-statement#1+before-statement#7"]),
        # The first takes over what the second has done, and refuses by name to go on with it.
        (PayFromRecords, versions_2.Backwards, ["twice:before-statement#1+before-statement#8"]),
    ],
)
def test_two_versions_at_once_lose_nothing_where_one_of_them_refuses(
    old: Any, new: Any, trials: list[str]
) -> None:
    """Each runs with its own types, as in two processes; what the old one refuses, the new one goes on with."""
    with Explorer(old, deploy=new) as explorer:
        found = explorer.run([parse_trial(each) for each in trials])
    assert found.good, found.text()


def test_what_the_versions_do_differently_is_named_and_not_compared() -> None:
    """A price that is another now, and a step that is new, are what the deploy is for."""
    found = explored(Pay, deploy=versions_2.Pay, sample=2, pairs=False, actions=["stop"])
    assert found.unseen == ["payments.cents", "1 row of totals"]
    assert "not compared, because the versions differ there: payments.cents, 1 row of totals" in found.text()


def test_versions_that_have_nothing_in_common_are_refused() -> None:
    """Such versions are refused because any outcome would pass; the user can give an outcome of their own."""
    message = "two versions leave no equal results.* give outcome="
    with pytest.raises(UsageError, match=message):
        explored(Pay, deploy=versions_2.Pay, outcome=total_of_cents, sample=1)
    with pytest.raises(UsageError, match=r"leave different rows in payments, 8 and 16 of them"):
        explored(Pay, deploy=versions_2.Doubled, sample=1)
    found = explored(
        Pay, deploy=versions_2.Doubled, outcome=invoices_paid, sample=2, pairs=False, actions=["crash"]
    )
    assert found.good, found.text()


def total_of_cents(left: Any) -> int:
    """Return one number."""
    return sum(cents for _, _, cents, _ in left["payments"].rows)


def invoices_paid(left: Any) -> set[int]:
    """Return the invoices that were paid, however often."""
    return {invoice for _, invoice, _, _ in left["payments"].rows}


def test_a_refusal_is_a_finding_where_that_is_asked() -> None:
    """The finding has the error, the lines and the command that repeats it."""
    found = explored(Pay, deploy=versions_2.Renamed, sample=2, pairs=False, actions=["stop"], strict=True)
    assert found.verdict == "refused"
    assert not found.good
    worst = found.worst
    assert worst is not None
    assert (
        "StepsChanged: Step 'pay_everybody' found, expected to resume from 'pay_all'), nothing lost"
        in worst.what
    )
    assert worst.command == (
        "harness explore tests.planted.versions:Pay --deploy tests.planted.versions_2:Renamed "
        f"--trial {worst.trial}"
    )


def test_a_version_that_does_harm_before_it_refuses_is_found() -> None:
    """The old version goes on, and what it leaves is compared."""
    found = explored(Pay, deploy=versions_2.RenamedTooLate, sample=1, pairs=False, actions=["stop"])
    assert found.worst is not None
    assert (
        "the old version then went on: payments: (invoice_id=1, cents=1, key=None), 5 times"
        in found.worst.what
    )


def test_every_way_to_die_shows_the_same() -> None:
    """Restored, simulated, and killed: the recovery is always the new version's."""
    trial = parse_trial("crash:commit#3")
    with Explorer(Pay, deploy=versions_2.Counts) as explorer:
        told = [
            [str(each) for each in explorer.result(trial, death).differences]
            for death in ("restored", "simulated", "killed")
        ]
    assert told == [["payments: no row (invoice_id=2, cents=1, key=None)"]] * 3


@pytest.mark.parametrize(
    ("new", "verdict"), [(versions_2.Pay, "exactly once"), (versions_2.Renamed, REFUSED)]
)
def test_on_rq_the_worker_finds_the_new_version_by_the_old_name(new: Any, verdict: str) -> None:
    """The verdict distinguishes a refusal from a failure by the name of the error."""
    found = explored(Pay, deploy=new, queue="rq", sample=2, pairs=False, actions=["crash", "stop"])
    assert found.verdict == verdict, found.text()
    assert versions.Pay is Pay, "afterwards all is as it was"


def test_a_version_that_fails_by_itself_is_refused() -> None:
    """A version that fails without an interruption is refused by name."""
    with pytest.raises(
        UsageError, match=r"the new version of .*:Pay fails even without an interruption.* LookupError"
    ):
        explored(Pay, deploy=versions_2.Unfinished)


def test_cursor_types_stand_in_for_those_of_the_same_name() -> None:
    """Each version reads stored types of the other as its own; after the block all is as before."""
    with types_standing_in("tests.planted.versions_2", "tests.planted.versions"):
        stored = encode(versions_2.Place(3))
        assert decode(stored) == versions_2.Place(3)
        with pytest.raises(CorruptProgress):
            decode({"$dataclass": ["tests.planted.versions:Place", {"invoice": 3}]})
    assert stored == {"$dataclass": ["tests.planted.versions:Place", {"invoice_id": 3}]}
    assert decode(encode(versions.Place(3))) == versions.Place(3)
    assert decode(encode(versions_2.Place(3))) == versions_2.Place(3)


def test_in_pytest(explore: Callable[..., Verdict]) -> None:
    """The fixture takes the new version; a refusal passes, unless it is strict."""
    options: dict[str, Any] = {"sample": 1, "pairs": False, "actions": ["stop"]}
    assert explore(Pay, deploy=versions_2.Renamed, **options).refused
    with pytest.raises(pytest.fail.Exception, match="refused: stopped"):
        explore(Pay, deploy=versions_2.Renamed, strict=True, **options)
    with pytest.raises(pytest.fail.Exception, match="lost: stopped"):
        explore(Pay, deploy=versions_2.Counts, **options)


NAME, NEW = "tests.planted.versions:Pay", "tests.planted.versions_2"


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--deploy", NEW], 0, "exactly once"),
        (["--deploy", f"{NEW}:Renamed"], 0, REFUSED),
        (["--deploy", f"{NEW}:Renamed", "--strict"], 1, "refused"),
        (["--deploy", f"{NEW}:Counts"], 1, "lost"),
    ],
)
def test_on_the_command_line(options: list[str], code: int, says: str) -> None:
    """A module, or a name in one; the exit code is 1 for a finding, and a refusal is one only with --strict."""
    result = harness("explore", NAME, *options, "--trial", "stop:checkpoint#2")
    assert result.exit_code == code, result.output
    assert f"{NAME}, resumed by {NEW}:" in result.stdout
    assert result.stdout.splitlines()[0].endswith(f": {says}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([NAME, "--deploy", "tests.planted.totals"], "tests.planted.totals has no 'Pay'"),
        ([NAME, "--deploy", f"{NEW}:charge"], "deploy= takes a job class"),
        (["tests.planted.versions:charge", "--deploy", f"{NEW}:Pay"], "deploy= takes a function"),
        (["scenarios.orders", "--deploy", NEW], "--deploy is for a job class or a function"),
    ],
)
def test_what_cannot_be_deployed_is_refused(arguments: list[str], message: str) -> None:
    """The error is one line that says what can be deployed."""
    assert message in one_line(harness("explore", *arguments))
