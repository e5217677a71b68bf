"""Time of a report of 1,000 and of 10,000 runs, and of a browser that opens its page."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from tests.browser import Browser
from tests.comparisons import ENVIRONMENT, INTERRUPTIONS, ITEMS, run

LIMITS = {1_000: 3.0, 10_000: 20.0}
"""Limits of the processor time of a report in seconds, by the number of runs."""


def records(number: int) -> list[dict[str, Any]]:
    """Return runs of three scenarios and forms, a third of which are interrupted as no other."""
    made = [
        run(scenario, form, name)
        for scenario in ITEMS
        for form in ("plain", "steps", "iteration")
        for name in INTERRUPTIONS
    ]
    return [
        made[index % len(made)]
        | ({"interruption": f"count:{index}"} if index % 3 == 0 and index > len(made) else {})
        for index in range(number)
    ]


@pytest.mark.parametrize("number", LIMITS)
def test_report(capsys: pytest.CaptureFixture[str], tmp_path: Path, number: int) -> None:
    """A report of many runs takes seconds, and a browser opens its page."""
    path = tmp_path / "records.json"
    path.write_text(json.dumps({"environment": ENVIRONMENT, "runs": records(number)}), encoding="utf-8")
    command = [sys.executable, "-m", "harness", "report", str(path), "--to", str(tmp_path)]
    before, start = os.times(), perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = perf_counter() - start, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    page = tmp_path / "comparison.html"
    with capsys.disabled():
        print(
            f"\n{number:,} runs: {wall:.1f} s, {used:.1f} s of processor time; {page.stat().st_size / 1e6:.1f} MB"
        )
        if chromium := shutil.which("chromium"):
            print(f"opened and filtered in {opened(chromium, page, number):.1f} s")
    assert used < LIMITS[number]


def opened(chromium: str, page: Path, number: int) -> float:
    """Return the seconds in which a browser opens a page and filters its runs."""
    with Browser(chromium, page.parent) as browser, browser.page():
        start = perf_counter()
        browser.show(page, 1440, 900, "light")
        browser.evaluate("document.querySelector('#runs details').open = true")
        shown = browser.evaluate("document.querySelector('#runs output').textContent")
        assert shown == f"{number} of {number} runs"
        return perf_counter() - start
