"""Labs for tests, one of each kind for each process, and trials in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.durability import parse_durability
from harness.errors import UsageError
from harness.lab import Lab, MissingService, required
from harness.pytest_plugin.collector import RECORD

if TYPE_CHECKING:
    from harness.durability import Durability
    from harness.interruptions import Interruption
    from harness.scenario import Scenario


class Labs:
    """Labs of this process, each created at its first use."""

    def __init__(self, config: pytest.Config, new_directory: Callable[[str], Path]) -> None:
        self._config, self._new_directory = config, new_directory
        self._labs: dict[tuple[str, str | None, str | None], Lab] = {}
        self._stack = ExitStack()

    def asked_for(self, asked: dict[str, Any]) -> Lab:
        """Return the lab of the options or of a test's parameter.

        If a needed server is not installed, the test is skipped, or fails if services are required.
        """
        option = self._config.getoption
        queue, broker, database = (
            option(f"--harness-{name}") or asked.get(name) for name in ("queue", "broker", "database")
        )
        try:
            return self._get(queue or "rq", broker, database)
        except MissingService as error:
            if required():
                pytest.fail(str(error), pytrace=False)
            pytest.skip(str(error))
        except UsageError as error:
            pytest.exit(str(error), returncode=2)

    def _get(self, queue: str, broker: str | None, database: str | None) -> Lab:
        key = queue, broker, database
        if key not in self._labs:
            option = self._config.getoption
            lab = Lab(
                self._new_directory("lab"),
                size=option("--harness-size"),
                pace=option("--harness-pace"),
                queue=queue,
                broker=broker,
                database=database,
            )
            self._labs[key] = self._stack.enter_context(lab)
        return self._labs[key]

    def has(self, lab: object) -> bool:
        """Return whether an object is one of these labs."""
        return lab in self._labs.values()

    def close(self) -> None:
        """Close all labs."""
        self._stack.close()


def trial_in(
    lab: Lab, config: pytest.Config, record_property: Callable[[str, object], None]
) -> Callable[..., dict[str, Any]]:
    """Return the function that runs a trial in a lab and keeps its record."""
    named = config.getoption("--harness-durability")

    def run(
        scenario: Scenario, form: str, interruption: Interruption, durability: Durability | None = None
    ) -> dict[str, Any]:
        asked = parse_durability(named) if named else durability
        try:
            record = lab.run(scenario, form, interruption, asked)
        except UsageError as error:  # an option that only the scenario can check, such as its size
            pytest.exit(str(error), returncode=2)
        record_property(RECORD, json.dumps(record))
        return record

    return run
