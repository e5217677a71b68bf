"""The commands: ``harness …`` and ``python -m harness``. One module for each purpose.

* :mod:`harness.cli.prepare`: verify, init-db, seed, reset.
* :mod:`harness.cli.work`: enqueue, worker; :mod:`harness.cli.run`: run; :mod:`harness.cli.demo`: demo,
  performed by :mod:`harness.cli.shows`.
* :mod:`harness.cli.steer`: interrupt, pause, resume, cancel, recover, scale.
* :mod:`harness.cli.watch`: status, monitor, explain; :mod:`harness.cli.web`: web.
* :mod:`harness.cli.judge`: bench, report; :mod:`harness.cli.explore`: explore.

Exit codes: 0 good, 1 the verdict is bad, 2 the command cannot be carried out as given, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

__all__ = ["main"]


def main(**settings: Any) -> None:
    """Run the command line; without the packages of the ``cli`` extra, say how to install them."""
    if find_spec("click") is None:
        sys.stderr.write(
            "harness: the commands need click, which is not installed; "
            "run pip install 'job-continuation-harness[cli]'\n"
        )
        sys.exit(2)
    from harness.cli.app import main as command

    command(**settings)
