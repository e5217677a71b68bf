"""The sample in reports/sample is what the code of today makes of its figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import report
from harness.report import Comparison
from tests.documents import ROOT

SAMPLE = ROOT / "reports" / "sample"
AGAIN = "run: harness report reports/sample/comparison.json --to reports/sample"


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    """Load it."""
    return Comparison.load(SAMPLE / "comparison.json")


def test_it_has_every_field_of_the_format(comparison: Comparison) -> None:
    """A sample that is older than the format is found."""
    found = json.loads((SAMPLE / "comparison.json").read_text(encoding="utf-8"))
    assert found == json.loads(json.dumps(comparison.to_json())), AGAIN


def test_its_files_are_what_would_be_written_today(comparison: Comparison, tmp_path: Path) -> None:
    """To the byte."""
    report.write(comparison, tmp_path)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {path.name: path.read_bytes() for path in SAMPLE.iterdir()} == written, AGAIN


def test_it_shows_all_there_is_to_show(comparison: Comparison) -> None:
    """Real workers, kills, both databases, and costs of every durability."""
    assert {run.broker for run in comparison.runs} >= {"fakeredis", "redis"}
    assert {run.database for run in comparison.runs} == {"sqlite", "postgresql"}
    assert any(run.killed for run in comparison.runs)
    assert len({each.durability for each in comparison.benchmarks}) > 3


def test_the_page_is_small(comparison: Comparison) -> None:
    """The page is smaller than half a megabyte."""
    assert len(report.html(comparison).encode()) < 500_000
