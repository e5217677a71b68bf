"""Expected differences between RQ's workers and ours, and their comparison with the outcomes of a run."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

EXPECTED = Path(__file__).with_name("expected.toml")

MODES = ("json", "pickle")
"""Runs that are compared with RQ's own workers: ours as they are, and ours with pickle let through."""


@dataclass(frozen=True)
class Difference:
    """Tests of RQ that fail with our workers, for one reason.

    :ivar modes: runs in which they fail. :ivar sometimes: whether they may also pass, as tests that measure time do.
    :ivar hangs: whether they would wait for ever with our workers; they are left out.
    """

    reason: str
    modes: tuple[str, ...]
    tests: tuple[str, ...]
    sometimes: bool = False
    hangs: bool = False


@dataclass(frozen=True)
class Comparison:
    """Result of one run: tests that failed unexpectedly, tests that passed unexpectedly, and tests not found."""

    unexpected: tuple[str, ...]
    gone: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def as_expected(self) -> bool:
        """Return whether there is nothing to report."""
        return not (self.unexpected or self.gone or self.missing)


def read_expected(path: Path = EXPECTED) -> list[Difference]:
    """Read the list of expected differences.

    :raises ValueError: if an entry has no reason, an unknown mode, or a test that another entry of the mode has.
    """
    found = []
    seen: set[tuple[str, str]] = set()
    for entry in tomllib.loads(path.read_text())["difference"]:
        each = Difference(
            entry["reason"], tuple(entry["modes"]), tuple(entry["tests"]), entry.get("sometimes", False),
            entry.get("hangs", False),
        )  # fmt: skip
        if not each.reason.strip() or not set(each.modes) <= set(MODES) or not each.modes:
            raise ValueError(f"got the entry {entry}; use a reason, and modes from {', '.join(MODES)}")
        for mode in each.modes:
            for test in each.tests:
                if (mode, test) in seen:
                    raise ValueError(f"{test} is listed twice for {mode}; keep one of the entries")
                seen.add((mode, test))
        found.append(each)
    return found


def read_outcomes(lines: Iterable[str]) -> dict[str, str]:
    """Return ``passed``, ``skipped`` or ``failed`` for each test; one failed phase or subtest makes it failed."""
    found: dict[str, str] = {}
    for line in lines:
        entry = json.loads(line)
        if found.get(entry["test"]) != "failed":
            found[entry["test"]] = entry["outcome"]
    return found


def failed(outcomes: Mapping[str, str]) -> set[str]:
    """Return the tests that failed."""
    return {test for test, outcome in outcomes.items() if outcome == "failed"}


def compare(
    mode: str, theirs: Mapping[str, str], ours: Mapping[str, str], expected: Iterable[Difference]
) -> Comparison:
    """Compare a run of our workers with a run of RQ's own and with the expected differences.

    A test that fails with RQ's own workers too is no difference, and shows nothing about an expected one.
    """
    entries = [each for each in expected if mode in each.modes]
    listed = {test for each in entries for test in each.tests if not each.hangs}
    always = {test for each in entries if not (each.sometimes or each.hangs) for test in each.tests}
    both = failed(theirs)
    return Comparison(
        unexpected=tuple(sorted(failed(ours) - both - listed)),
        gone=tuple(sorted(test for test in always - both if ours.get(test) in {"passed", "skipped"})),
        missing=tuple(sorted(listed - set(ours))),
    )
