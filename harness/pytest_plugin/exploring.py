"""Explorations as tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from harness.explore import Explorer, Verdict, parse_trial
from harness.explore.seen import SUFFIX
from harness.pytest_plugin.collector import EXPLORATION
from harness.pytest_plugin.options import sample


def explorer_for(request: pytest.FixtureRequest) -> Callable[..., Verdict]:
    """Return the function that explores a job in a test; see the fixture ``explore``."""

    def run(
        job: Any,
        *args: Any,
        expect: str | None = "exactly once",
        about: tuple[str, str, str] | None = None,
        **options: Any,
    ) -> Verdict:
        only = request.config.getoption("--harness-trial")
        chosen = options_of(request.config, request.node.nodeid, options)
        with Explorer(job, *args, **chosen) as explorer:
            verdict = explorer.run([parse_trial(only)] if only else None)
        if about is not None:
            names = dict(zip(("scenario", "pattern", "durability"), about, strict=True))
            request.node.user_properties.append((EXPLORATION, json.dumps({**names, **verdict.summary})))
        refused = verdict.good and bool(verdict.refused)
        # A verdict with unseen effects passes only if the test expects or accepts exactly that.
        short = bool(verdict.not_seen) and verdict.promises and not (expect or "").endswith(SUFFIX)
        if expect is not None and not refused and (short or not verdict.verdict.startswith(expect)):
            pytest.fail(verdict.text(), pytrace=False)
        return verdict

    return run


def options_of(config: pytest.Config, nodeid: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of an explorer; the command line overrides the test."""
    processes = config.getoption("--harness-processes")
    return {
        "seed": config.getoption("--harness-seed"),
        "command": f"pytest '{nodeid.partition('[')[0]}' --harness-trial {{trial}}",
        **options,
        "accept": [*options.get("accept", ()), *config.getoption("--harness-accept")],
        "sample": sample(config, options.get("sample")),
        "processes": options.get("processes") if processes is None else processes,
    }
