"""Coverage of an exploration: points tried, resources compared, and effects not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.explore.probes import files, postgres_server
from harness.explore.probes.older import held
from harness.explore.seen import UNREACHED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from harness.explore.external_state import ExternalState
    from harness.explore.findings import Verdict
    from harness.explore.recording import Recording


def count(verdict: Verdict, recording: Recording, tried: AbstractSet[int]) -> None:
    """Write the number of points, states and lines into a verdict.

    :param tried: indexes of the states in which a crash was tried.
    """
    verdict.points, verdict.states = len(recording.points), len(recording.states)
    verdict.tried = len(tried)
    lines = {(point.lines[-1], point.state in tried) for point in recording.points if point.lines}
    verdict.all_lines = len({line for line, _ in lines})
    verdict.lines = len({line for line, was_tried in lines if was_tried})


def miss(external: ExternalState, trials: list[str]) -> None:
    """Record trials that did not reach their crash points, as not seen."""
    if trials:
        number = f"{len(trials)} {'trial' if len(trials) == 1 else 'trials'}"
        external.not_seen.add(UNREACHED, f"{number} did not reach the crash point again, such as {trials[0]}")


def held_by(external: ExternalState, modules: Sequence[str]) -> None:
    """Record objects in the modules of a job that no probe can watch, as not seen."""
    for name, what, module in held(modules):
        external.not_seen.add(name, what, module)


def written(
    external: ExternalState, before: Mapping[str, tuple[str, int]], after: Mapping[str, tuple[str, int]]
) -> None:
    """Record files written through a descriptor opened before the job, and files under random names that remain.

    :param before: path and position by descriptor, as of :func:`~harness.explore.probes.older.positions`.
    """
    for number, (path, position) in after.items():
        if number in before and before[number] != (path, position) and not external.has_file(path):
            name = path.rpartition("/")[2]
            external.not_seen.add(
                "open-file", f"{name} is written through a descriptor that was already open"
            )
    for path, line in files.left():
        folder = path.rpartition("/")[0].rpartition("/")[2]
        external.not_seen.add("tempfile", f"a file or folder under a random name stays in {folder}", line)


def bound(
    verdict: Verdict,
    external: ExternalState,
    recording: Recording | None,
    accepted: Iterable[str],
    *,
    whole: bool = True,
) -> None:
    """Write into a verdict the number of trials, the compared resources and the unseen effects.

    :param accepted: names of effects that may stay unseen.
    :param whole: whether all resources are compared, not the result of a user's function.
    """
    if recording is not None:
        before, after = recording.contents(0), recording.contents(len(recording.states) - 1)
        for table, trigger in external.notifying().items():
            if before.get(table) != after.get(table):
                what = f"trigger {trigger} on {table} may send notifications, which are not compared"
                external.not_seen.add(postgres_server.NAME, what)
    verdict.not_seen, verdict.accepted = external.not_seen.split(accepted)
    if recording is None:
        return
    if not whole:
        verdict.compared = ["outcome="]
        return
    both = recording.contents(0), recording.contents(len(recording.states) - 1)
    verdict.compared = sorted({name for left in both for name, table in left.items() if table.rows})
