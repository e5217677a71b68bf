"""Trials: a job, its data and an interruption, run to the end and judged.

* :mod:`harness.lab.lab`: what a trial needs, made before it and removed after it.
* :mod:`harness.lab.embedded`: in this process; no process is killed, so what SIGKILL does is not shown.
* :mod:`harness.lab.processes`: with real workers on a real Redis, signalled and killed.
"""

from harness.lab.lab import Lab, environment
from harness.lab.services import MissingService, required
from harness.lab.trial import Trial

__all__ = ["Lab", "MissingService", "Trial", "environment", "required"]
