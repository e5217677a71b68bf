"""The project's own tests, with nothing but the installed plugin's fixture."""

import contextlib

import pytest
from shopapp import models, tasks


@contextlib.contextmanager
def members():
    """Fill the database."""
    models.fill()
    yield
    models.engine.dispose()


@pytest.fixture
def filled():
    """Fill the database."""
    with members():
        yield


def test_charge_fees(filled, explore):
    """Fails: a member pays twice."""
    explore(tasks.charge_fees, "2024-05")


def test_charge_fees_once(filled, explore):
    """Passes."""
    verdict = explore(tasks.charge_fees_once, "2024-05")
    assert verdict.verdict == "exactly once"


def test_welcome(filled, explore):
    """Fails: a member is welcomed twice."""
    explore(tasks.welcome)


@pytest.mark.parametrize(
    ("task", "verdict", "options"),
    [
        (tasks.waits_for_itself, "not done in time", {"limit": 0.3}),
        (tasks.never_ends, "not done in time", {"limit": 0.3}),
        (tasks.leaves, "calls os._exit", {}),
        (tasks.forks, "forks", {}),
        (tasks.never_ends_after_a_crash, "never finishes", {}),
    ],
)
def test_misbehaved(filled, explore, task, verdict, options):
    """Passes: what is wrong is said, and the tests go on."""
    assert explore(task, expect=verdict, sample=3, actions=["crash"], **options).verdict == verdict


@pytest.mark.parametrize("limit", [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064])
def test_out_of_time(filled, explore, limit):
    """Passes: wherever a job's time ends, its database can be restored, and a verdict about time names the limit."""
    task = tasks.never_ends_after_a_crash
    found = explore(task, expect=None, sample=3, actions=["crash"], limit=limit)
    assert found.verdict in {"never finishes", "not done in time"}
    assert found.verdict == "never finishes" or "raise it by --limit" in found.text()


@pytest.mark.crash_points(tasks.charge_fees, "2024-05", within=members, actions=["crash"])
def test_each(filled, crash_point):
    """Fails where a fee was charged when the crash came, and passes where none was."""
    assert crash_point.good, crash_point.text()
