"""The explorer: crash a job at every point, and report the lines that lose or duplicate work.

::

    verdict = explore(charge_everybody, "2024-05")
    assert verdict.good, verdict.text()
"""

from harness.explore.explorer import Explorer, explore
from harness.explore.findings import Finding, Verdict
from harness.explore.planned import PlannedTrial, parse_trial

__all__ = ["Explorer", "Finding", "PlannedTrial", "Verdict", "explore", "parse_trial"]
