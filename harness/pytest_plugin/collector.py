"""Records of all processes of a session, and the progress bar."""

from __future__ import annotations

import json
import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.boundary.decoding import FILE_BYTES, parse_json

if TYPE_CHECKING:
    from harness.monitor import TrialBar

RECORD, EXPLORATION = "harness-record", "harness-exploration"
"""Names of the user properties that transport a result from a test through xdist into the records."""

PACKAGES = ("rq", "redis", "sqlalchemy", "fakeredis", "pytest")


class Collector:
    """Collects the records of all processes, and draws the bar."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._found: dict[str, list[dict[str, Any]]] = {RECORD: [], EXPLORATION: []}
        self._bar: TrialBar | None = None

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Start the bar if this process counts the tests."""
        if session.items:
            self._start_bar(len(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: object, ids: list[str]) -> None:
        """Start the bar if other processes count the tests."""
        del node
        self._start_bar(len(ids))

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Show the bar instead of a dot for each test that passes."""
        return ("passed" if report.when == "call" else "", "", "") if self._bar and report.passed else None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the records in a test's last report."""
        if report.when != "teardown":
            return
        for name, value in report.user_properties:
            if name in self._found:
                self._found[name].append(
                    parse_json(value, f"the record of {report.nodeid}", limit=FILE_BYTES)
                )
        if self._bar:
            self._bar.advance(report.nodeid.rpartition("::")[2])

    def pytest_sessionfinish(self) -> None:
        """Write the records, all of them or nothing."""
        if self._bar:
            self._bar.stop()
        option = self._config.getoption
        target = option("--harness-records")
        if target and any(self._found.values()):
            environment = import_module("harness.lab").environment
            data = {
                "environment": environment(option("--harness-size"), option("--harness-pace"), PACKAGES),
                "runs": self._found[RECORD],
                "explorations": self._found[EXPLORATION],
            }
            path = Path(target)
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f".{path.name}.{os.getpid()}")
            unfinished.write_text(json.dumps(data), encoding="utf-8")
            unfinished.replace(path)

    def _start_bar(self, total: int) -> None:
        if self._config.getoption("--harness-bar") and self._bar is None:
            # That module needs Rich, which is loaded only if a bar is requested.
            self._bar = import_module("harness.monitor").TrialBar(total)
