"""Long background jobs that survive a deploy: steps and iteration, and a harness that tests them.

This module exports the names that job authors need. Errors are in :mod:`harness.errors`, stop sources in
:mod:`harness.stops`, stores in :mod:`harness.stores`, queues in :mod:`harness.queues`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from harness.context import Portion
from harness.cursor import cursor_type, successor
from harness.durability import every, on_stop, with_transaction
from harness.errors import CancelJob, CompleteEarly, RetryLater
from harness.events import subscribe
from harness.iteration import IterationJob
from harness.job import attribute
from harness.ledger import mark
from harness.queues.inline import InlineRun, run
from harness.runtime.stepping import Step
from harness.sources.csv_files import csv_batches, csv_rows
from harness.sources.enumerators import Enumerator, items, once, times
from harness.sources.nesting import nested
from harness.sources.parallel import parallel, parallel_items
from harness.sources.throttles import throttle
from harness.steps import ContinuableJob

if TYPE_CHECKING:
    from harness.sources.keyset import batches, ranges, records
    from harness.sources.parallel_selects import parallel_batches, parallel_records

__all__ = [
    # The two patterns
    "ContinuableJob",
    "IterationJob",
    "Step",
    "attribute",
    # Sources of items
    "Enumerator",
    "batches",
    "csv_batches",
    "csv_rows",
    "items",
    "nested",
    "once",
    "parallel",
    "parallel_batches",
    "parallel_items",
    "parallel_records",
    "ranges",
    "records",
    "throttle",
    "times",
    # Cursors
    "cursor_type",
    "successor",
    # Durability
    "every",
    "on_stop",
    "with_transaction",
    # Exceptions with which a job ends itself
    "CancelJob",
    "CompleteEarly",
    "RetryLater",
    # Running and watching
    "InlineRun",
    "Portion",
    "mark",
    "run",
    "subscribe",
]

_MODULES = {
    "harness.sources.keyset": ("batches", "ranges", "records"),
    "harness.sources.parallel_selects": ("parallel_batches", "parallel_records"),
}
"""Modules that load SQLAlchemy, which takes most of the import time, with the names exported from them."""

_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

_FORMER_EXPORTS = (
    "harness.errors", "harness.progress", "harness.stops", "harness.durability", "harness.overrides",
    "harness.stores.memory",
)  # fmt: skip
"""Modules whose names release 0.1 also exported here, so that code written for it still works."""


def __getattr__(name: str) -> Any:
    """Return a name whose module is loaded when the name is first used."""
    if name in _MODULE_OF:
        value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
        return value
    if not name.startswith("_"):
        for module in map(import_module, _FORMER_EXPORTS):
            if getattr(vars(module).get(name), "__module__", None) == module.__name__:
                return vars(module)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
