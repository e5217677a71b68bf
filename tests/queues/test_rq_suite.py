"""RQ's tests with our workers: outcomes are compared with the list of expected differences."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rq_suite.differences import Comparison, Difference, compare, read_expected, read_outcomes

EXPECTED = [
    Difference("a reason", ("json",), ("always", "theirs too")),
    Difference("time", ("json",), ("now and then",), sometimes=True),
    Difference("never ends", ("json",), ("stuck",), hangs=True),
]
PASSED = dict.fromkeys(["always", "theirs too", "now and then", "fine"], "passed")


@pytest.mark.parametrize("timed", ["passed", "failed"])
def test_expected_differences_are_no_finding(timed: str) -> None:
    """A listed test fails, a timed one may do either, and one that RQ's workers fail too shows nothing."""
    ours = PASSED | {"always": "failed", "now and then": timed}
    assert compare("json", PASSED | {"theirs too": "failed"}, ours, EXPECTED).as_expected


def test_every_other_difference_is_a_finding() -> None:
    """A failure that is not listed, a listed one that is gone, and a listed test that is missing are each named."""
    ours = {"fine": "failed", "always": "passed", "now and then": "passed"}
    found = compare("json", PASSED, ours, EXPECTED)
    assert found == Comparison(unexpected=("fine",), gone=("always",), missing=("theirs too",))
    assert not found.as_expected


def test_one_failed_phase_is_a_failed_test() -> None:
    """A test whose tear-down or subtest fails counts as failed, even if other parts passed."""
    lines = [f'{{"test": "a", "outcome": "{each}"}}' for each in ("passed", "failed", "passed")]
    assert read_outcomes(lines) == {"a": "failed"}


def test_each_expected_difference_has_a_reason(tmp_path: Path) -> None:
    """The list can be read, and an entry without a reason is refused."""
    assert all(each.reason for each in read_expected())
    path = tmp_path / "expected.toml"
    path.write_text('[[difference]]\nreason = " "\nmodes = ["json"]\ntests = ["a"]\n')
    with pytest.raises(ValueError, match="use a reason"):
        read_expected(path)
