"""Explores the demonstration jobs, each with data of its own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from harness.explore.explorer import Explorer

if TYPE_CHECKING:
    from harness.durability import Durability
    from harness.explore.findings import Verdict
    from harness.scenario import Scenario


@contextmanager
def seeded(scenario: Scenario, size: str) -> Iterator[None]:
    """Set up a SQLite database with the scenario's data of that size, and remove it afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        variables = {
            "HARNESS_DATABASE_URL": f"sqlite:///{Path(folder) / 'explored.db'}",
            "HARNESS_SMTP": "mail:25",
        }
        with mock.patch.dict(os.environ, variables):
            try:
                scenario.seed(size)
                yield
            finally:
                scenario.close()


def explore_scenario(
    scenario: Scenario, form: str, durability: Durability | None, *, size: str, **options: Any
) -> Verdict:
    """Explore a scenario in one of its forms; takes what :class:`~harness.explore.Explorer` takes."""
    with seeded(scenario, size):
        args = [scenario.arguments()] if form == "plain" else []
        with Explorer(scenario.forms[form], *args, durability=durability, **options) as explorer:
            return explorer.run()
