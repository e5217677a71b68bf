"""Trials: run a job with its data and an interruption to the end, and judge the result.

* :mod:`harness.lab.lab`: a trial's database, broker and mailbox, set up before it and removed after it.
* :mod:`harness.lab.embedded`: trials in this process; no process is killed, so they do not show the effect of SIGKILL.
* :mod:`harness.lab.processes`: trials with real workers on a real Redis, signalled and killed.
* :mod:`harness.lab.servers`: private Redis and PostgreSQL servers; needs no extra, so it loads nothing else of the lab.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.lab.lab import Lab, environment
    from harness.lab.services import MissingService, required
    from harness.lab.trial import Trial

__all__ = ["Lab", "MissingService", "Trial", "environment", "required"]

_MODULE_OF = {
    "Lab": "harness.lab.lab",
    "environment": "harness.lab.lab",
    "MissingService": "harness.lab.services",
    "required": "harness.lab.services",
    "Trial": "harness.lab.trial",
}
"""Modules of the exported names; they need the ``test`` extra, so they are loaded when a name is first used."""


def __getattr__(name: str) -> Any:
    """Load an exported name."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
    return value
