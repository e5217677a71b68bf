"""Report of an exploration: the verdict on a job, and its findings, the smallest interruption first."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from harness.explore.seen import SUFFIX, NotSeen

GOOD = "exactly once"
AT_LEAST_ONCE = "at least once"
REFUSED = "refused"
TWO_AT_ONCE = "not guarded against two at once"
"""Verdict on a job that is correct alone, but wrong if a second execution runs at the same time."""
RANK = (
    "not done in time", "never finishes", "error on resume", "lost", "wrong total", "duplicated",
    "superseded worker wrote", TWO_AT_ONCE, REFUSED, AT_LEAST_ONCE,
)  # fmt: skip
"""Verdicts from the worst to the mildest."""
COMPARED = 12
"""Number of compared resources whose names are shown."""


@dataclass(frozen=True)
class Finding:
    """Trial whose outcome differs from the clean run's.

    :ivar verdict: one of :data:`RANK`. :ivar trial: its name, which repeats it.
    :ivar what: description of the wrong external state. :ivar item: the item in progress, by its mark.
    :ivar where: the crash point; :ivar lines: the lines of the job's own code around it, ``file:line``.
    :ivar written: lines where the clean run wrote the wrong rows, before the interruption.
    :ivar resumed: the step and the cursor from which the next execution resumed, and the line that had set the
        cursor.
    :ivar repeated: number of items begun again. :ivar command: repeats only this trial.
    """

    verdict: str
    trial: str
    what: str
    item: str | None = None
    where: str = ""
    lines: tuple[str, ...] = ()
    repeated: int = 0
    command: str = ""
    written: tuple[str, ...] = ()
    resumed: str = ""

    def __str__(self) -> str:
        text = f"{self.verdict}: {self.place}"
        if self.item:
            text += f", in {self.item}"
        text += f"; {self.what}"
        if self.written:
            text += f", first written at {', '.join(self.written)}"
        return f"{text}; {self.resumed}" if self.resumed else text

    @property
    def place(self) -> str:
        """Description of the point of the interruption."""
        if self.trial == "none":
            return f"at {self.lines[0]}" if self.lines else "undisturbed"
        how = {
            "crash": "died",
            "stop": "stopped",
            "lost-reply": "the answer was lost",
            "cancel": "its task was cancelled",
            "freeze": "stood still",
            "twice": "two executions were stopped at the same time",
            "switch": "other items went on",
            "order": "items went on in another order",
        }
        verb = how[self.trial.partition(":")[0]]
        if len(self.lines) > 1 and self.lines[0] == self.lines[1]:
            place = f"{verb} after {self.lines[0]}, before it came there again"
        elif len(self.lines) > 1:
            place = f"{verb} between {self.lines[0]} and {_short(self.lines)}"
        else:
            place = f"{verb} at {self.lines[0]}" if self.lines else verb
        return f"{place}, {self.trial}"


@dataclass
class Verdict:
    """Result of the exploration of a job.

    :ivar job: its dotted name. :ivar findings: the smallest interruption first.
    :ivar trials: number of trials run, by action. :ivar planned: number of possible trials.
    :ivar points: number of crash points of the clean run. :ivar states: number of distinct
        external states between them.
    :ivar tried: number of these states in which a crash was tried.
    :ivar lines: number of lines of the job's code after which a crash was tried. :ivar all_lines: number of all
        those lines.
    :ivar seconds: duration. :ivar seed: seed of the samples.
    :ivar deploy: the dotted name of the new version, if there is one. :ivar refused: reasons why it refused to resume,
        each with the number of trials; the old version then resumed.
    :ivar compared: names of the tables, keys and files that were compared.
    :ivar not_seen: effects of the job that no probe watches. :ivar accepted: unseen effects
        that the user accepts.
    :ivar stopped: seconds after which no more trials were started; None if all were run.
    :ivar unseen: cells and rows that were not compared, because the two versions leave different ones.
    :ivar ignored: everything else that was not compared, each with the reason.
    """

    job: str
    seed: int = 0
    findings: list[Finding] = field(default_factory=list)
    trials: Counter[str] = field(default_factory=Counter)
    planned: Counter[str] = field(default_factory=Counter)
    points: int = 0
    states: int = 0
    tried: int = 0
    lines: int = 0
    all_lines: int = 0
    seconds: float = 0.0
    deploy: str | None = None
    refused: Counter[str] = field(default_factory=Counter)
    unseen: list[str] = field(default_factory=list)
    compared: list[str] = field(default_factory=list)
    not_seen: list[NotSeen] = field(default_factory=list)
    accepted: list[NotSeen] = field(default_factory=list)
    stopped: float | None = None
    ignored: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """The worst verdict of the findings; without findings ``exactly once``, or ``refused, nothing lost``.

        If something was not seen, a verdict that promises something ends with ``, of what was seen``.
        """
        return f"{self._found}{SUFFIX if self.not_seen and self.promises else ''}"

    @property
    def promises(self) -> bool:
        """True if the verdict is acceptable: exactly once, at least once, or refused."""
        return all(finding.verdict in {AT_LEAST_ONCE, REFUSED} for finding in self.findings)

    @property
    def _found(self) -> str:
        found = {finding.verdict for finding in self.findings}
        worst = next((each for each in RANK if each in found), None)
        if worst == AT_LEAST_ONCE:
            return f"{AT_LEAST_ONCE}, repeated ≤ {self.repeated}"
        return worst or next(iter(found), f"{REFUSED}, nothing lost" if self.refused else GOOD)

    @property
    def good(self) -> bool:
        """True if every trial ended like the clean run, and all effects were seen or accepted."""
        return not self.findings and not self.not_seen

    @property
    def wrong(self) -> int:
        """Number of findings that no durability permits."""
        return sum(finding.verdict not in {AT_LEAST_ONCE, REFUSED} for finding in self.findings)

    @property
    def repeated(self) -> int:
        """Maximum number of items that one interruption made the job repeat."""
        return max((finding.repeated for finding in self.findings), default=0)

    @property
    def worst(self) -> Finding | None:
        """Finding of the verdict: the smallest interruption that proves it."""
        rank = {verdict: index for index, verdict in enumerate(RANK)}
        return min(self.findings, key=lambda each: rank.get(each.verdict, -1), default=None)

    @property
    def record(self) -> dict[str, Any]:
        """The whole verdict, for JSON."""
        counters = {"trials": self.trials, "planned": self.planned, "refused": self.refused}
        counts = {name: dict(counter) for name, counter in counters.items()}  # asdict() knows no Counter
        return {**asdict(self), **counts, "verdict": self.verdict, "repeated": self.repeated}

    @property
    def summary(self) -> dict[str, Any]:
        """Its numbers in the form of a comparison."""
        return {
            "verdict": self.verdict, "points": self.points, "states": self.states, "tried": self.tried,
            "trials": sum(self.trials.values()), "lines": self.all_lines, "lines_tried": self.lines,
            "repeated_most": self.repeated, "seconds": round(self.seconds, 3),
        }  # fmt: skip

    def text(self, shown: int = 5) -> str:
        """Return the verdict, its numbers and the first findings; findings at the same lines are listed once."""
        job = f"{self.job}, resumed by {self.deploy}" if self.deploy else self.job
        lines = [f"{job}: {self.verdict}", f"  {self.figures}"]
        lines += self._refusals()
        if self.unseen:
            lines += [f"  not compared, because the versions differ there: {', '.join(self.unseen)}"]
        alike = self._alike()
        for finding, *others in alike[:shown]:
            lines += [f"  {finding}"]
            if others:
                lines[-1] += f"; and {len(others)} more {'trial' if len(others) == 1 else 'trials'} there"
            if finding.command:
                lines += [f"    again: {finding.command}"]
        lines += [f"  not compared: {each}" for each in self.ignored]
        more = sum(map(len, alike[shown:]))
        if more:
            lines.append(f"  and {more} more {'finding' if more == 1 else 'findings'}")
        return "\n".join([*lines, *self._rests_on()])

    @property
    def figures(self) -> str:
        """Description of the number of trials."""
        tried = ", ".join(
            f"{self.trials[action]} {action}"
            + (f" of {self.planned[action]}" if self.planned[action] > self.trials[action] else "")
            for action in self.planned or self.trials
        )
        rate = f"{sum(self.trials.values()) / self.seconds:.0f} trials/s" if self.seconds else ""
        return (
            f"{self.points} crash points, {self.states} distinct external states, {self.tried} tried; "
            f"{self.lines} of {self.all_lines} lines; trials: {tried}; seed {self.seed}; {self.seconds:.1f} s, {rate}"
        )

    def _rests_on(self) -> list[str]:
        """Return the compared resources and the unseen effects, one line each."""
        lines = []
        lines += [f"  not seen: {each}" for each in self.not_seen]
        lines += [f"  not seen, accepted: {each}" for each in self.accepted]
        if self.not_seen:
            names = " ".join(
                f"--accept {name}" for name in dict.fromkeys(each.name for each in self.not_seen)
            )
            lines.append(f"    to accept that: {names}, or accept= in Python")
        if self.stopped is not None:
            lines.append(f"  no trial started after {self.stopped:g} s; allow more with --time or time=")
        if self.compared:
            more = f" and {len(self.compared) - COMPARED} more" if len(self.compared) > COMPARED else ""
            lines.append(f"  compared: {', '.join(self.compared[:COMPARED])}{more}")
        return lines

    def _refusals(self) -> list[str]:
        """Return the reasons why the new version refused, one line for each error."""
        reasons: dict[str, list[str]] = {}
        for why, times in self.refused.items():
            reasons.setdefault(why.partition(":")[0], []).extend([why] * times)
        lines = [
            f"  refused in {len(texts)} {'trial' if len(texts) == 1 else 'trials'}: {texts[0]}"
            + ("; and alike" if len(set(texts)) > 1 else "")
            for texts in reasons.values()
        ]
        if lines and not self.findings:
            lines.append("  the progress was kept: the old version, deployed again, did the rest")
        return lines

    def _alike(self) -> list[list[Finding]]:
        """Return the findings by verdict and lines, the smallest interruption first.

        The first finding of each verdict comes before all others, from the worst to the mildest, so that
        every verdict is shown.
        """
        groups: dict[Any, list[Finding]] = {}
        for finding in self.findings:
            groups.setdefault((finding.verdict, finding.lines, finding.written), []).append(finding)
        rank = {verdict: index for index, verdict in enumerate(RANK)}
        firsts: dict[str, list[Finding]] = {}
        for group in groups.values():
            firsts.setdefault(group[0].verdict, group)
        ranked = sorted(groups.values(), key=lambda group: rank.get(group[0].verdict, -1))
        first = [group for group in ranked if group is firsts[group[0].verdict]]
        return first + [group for group in ranked if group is not firsts[group[0].verdict]]


def _short(lines: tuple[str, ...]) -> str:
    """Omit the file name if it is the same."""
    file, _, number = lines[1].rpartition(":")
    return f":{number}" if lines[0].rpartition(":")[0] == file else lines[1]
