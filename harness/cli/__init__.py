"""The commands: ``harness …`` and ``python -m harness``. One module for each thing that one wants to do.

* :mod:`harness.cli.prepare`: verify, init-db, seed, reset.
* :mod:`harness.cli.run`: enqueue, worker, run; :mod:`harness.cli.demo`: demo.
* :mod:`harness.cli.steer`: interrupt, pause, resume, cancel, recover, scale.
* :mod:`harness.cli.watch`: status, monitor, explain.
* :mod:`harness.cli.judge`: bench, report; :mod:`harness.cli.explore`: explore.

Exit codes: 0 good, 1 the verdict is bad, 2 the command cannot be carried out as given, 130 stopped by Ctrl-C.
"""

from harness.cli.app import main

__all__ = ["main"]
