"""Live output while jobs run. Only this package and the commands import rich.

* :mod:`harness.monitor.snapshot`: the data, read from Redis and the database: numbers, no drawing.
* :mod:`harness.monitor.tables`: counts of the database's rows by state.
* :mod:`harness.monitor.jobs`: the lines about one job.
* :mod:`harness.monitor.screen`: a snapshot as lines, and the live screen.
* :mod:`harness.monitor.bar`: the progress bar.
"""

from harness.monitor.bar import ItemBar, LiveLine, TrialBar
from harness.monitor.screen import WIDTH, LiveScreen, draw, lines, summary
from harness.monitor.snapshot import JobRow, Monitor, Snapshot
from harness.monitor.tables import StatusTables

__all__ = [
    "WIDTH",
    "ItemBar",
    "JobRow",
    "LiveLine",
    "LiveScreen",
    "Monitor",
    "Snapshot",
    "StatusTables",
    "TrialBar",
    "draw",
    "lines",
    "summary",
]
