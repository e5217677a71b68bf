"""Long background jobs that survive a deploy: steps and iteration, and a harness that proves it."""

from harness.csv_files import csv_batches, csv_rows
from harness.cursor import cursor_type, successor
from harness.durability import Durability, every, on_stop, with_transaction
from harness.enumerators import Enumerator, items, once, throttle, times
from harness.errors import (
    CancelJob,
    CheckpointInTransaction,
    CollectionChanged,
    CompleteEarly,
    CorruptProgress,
    CrashLimit,
    CursorError,
    HarnessError,
    InheritedConnection,
    Interrupt,
    InterruptSwallowed,
    InvalidStep,
    JobDefinitionError,
    NothingInterrupted,
    ProgressError,
    ProgressTooLarge,
    ProgressUnavailable,
    QuarantineFull,
    ResumeLimit,
    RetryLater,
    Superseded,
    UnadvanceableCursor,
    UnsupportedProgress,
    UsageError,
)
from harness.events import subscribe
from harness.execution import Portion
from harness.iteration import IterationJob
from harness.job import attribute
from harness.keyset import batches, ranges, records
from harness.ledger import mark
from harness.nesting import nested
from harness.overrides import limit_runtime
from harness.parallel import parallel, parallel_items
from harness.parallel_selects import parallel_batches, parallel_records
from harness.progress import Progress, StopSource, Store, TransactionalStore
from harness.queues.inline import InlineRun, run
from harness.steps import ContinuableJob, Step
from harness.stops import Flag, any_of, throttled
from harness.stores.memory import MemoryStore

__all__ = [
    # The two patterns
    "ContinuableJob",
    "IterationJob",
    "Step",
    "attribute",
    # Where items come from
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
    # When progress becomes safe, and where
    "Durability",
    "MemoryStore",
    "Progress",
    "Store",
    "TransactionalStore",
    "every",
    "on_stop",
    "with_transaction",
    # When to stop
    "Flag",
    "StopSource",
    "any_of",
    "limit_runtime",
    "throttled",
    # Running and watching
    "InlineRun",
    "Portion",
    "mark",
    "run",
    "subscribe",
    # Errors
    "CancelJob",
    "CheckpointInTransaction",
    "CollectionChanged",
    "CompleteEarly",
    "CorruptProgress",
    "CrashLimit",
    "CursorError",
    "HarnessError",
    "InheritedConnection",
    "Interrupt",
    "InterruptSwallowed",
    "InvalidStep",
    "JobDefinitionError",
    "NothingInterrupted",
    "ProgressError",
    "ProgressTooLarge",
    "ProgressUnavailable",
    "QuarantineFull",
    "ResumeLimit",
    "RetryLater",
    "Superseded",
    "UnadvanceableCursor",
    "UnsupportedProgress",
    "UsageError",
]
