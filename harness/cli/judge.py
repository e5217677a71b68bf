"""Judge: bench, report."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from harness import report as reports
from harness.cli.completion import scenarios
from harness.cli.output import echo
from harness.cli.settings import json_option, scenario_named
from harness.cli.stopping import HardStop
from harness.interruptions import parse_interruption
from harness.monitor import TrialBar
from harness.scenario import Scenario


@click.command()
@click.argument("name", default="scenarios.orders", shell_complete=scenarios)
@click.option(
    "--rounds",
    type=click.IntRange(2),
    default=7,
    show_default=True,
    help="Number of rounds for each form; the forms alternate.",
)
@click.option("--size", default="quick", show_default=True, help="Size of the scenario's data.")
@json_option
def bench(name: str, rounds: int, size: str, as_json: bool) -> None:
    """Measure the cost of each form of a scenario without interruption, against the plain loop.

    The time of an item is the time of a whole run, from the queue to its end, divided by its items. The ratio
    compares the medians. It means little if the ranges overlap.

    \b
    harness bench
    harness bench scenarios.emails --rounds 15 --size full --json
    """
    scenario = scenario_named(name)
    costs = _measured(scenario, rounds, size)
    first, plain = next((form, statistics.median(each)) for form, each in costs.items())
    rows = [
        {
            "scenario": scenario.name, "form": form, "rounds": rounds, "median_us": statistics.median(each),
            "least_us": min(each), "most_us": max(each), "ratio": statistics.median(each) / plain,
        }
        for form, each in costs.items()
    ]  # fmt: skip
    if as_json:
        click.echo(json.dumps(rows))
        return
    echo(f"{'form':10} {'µs an item':>12} {'least':>10} {'most':>10} {f'to {first}':>12}")
    for row in rows:
        echo(
            f"{row['form']:10} {row['median_us']:12,.1f} {row['least_us']:10,.1f} {row['most_us']:10,.1f} "
            f"{row['ratio']:12.2f}"
        )


LEFT_OUT = 5
"""Maximum number of omitted records to name."""


@click.command()
@click.argument("records", type=click.Path(path_type=Path))
@click.option(
    "--benchmarks", type=click.Path(path_type=Path), help="File written by pytest --benchmark-json."
)
@click.option("--to", "folder", type=click.Path(path_type=Path), default=Path("reports"), show_default=True)
@click.option(
    "--against", type=click.Path(path_type=Path), help="An older comparison.json: show the changes."
)
@click.option(
    "--fail-if", "conditions", multiple=True, help="Condition that makes the exit code 1; may be repeated."
)
def report(
    records: Path, benchmarks: Path | None, folder: Path, against: Path | None, conditions: Sequence[str]
) -> None:
    """Make comparison.json, .md, .html and pictures from RECORDS, and print the tables.

    RECORDS is a file of pytest --harness-records, or a comparison.json. The report names and omits each
    record that it cannot read; with --fail-if the exit code is then 1.

    \b
    harness report reports/records.json --benchmarks reports/benchmarks.json
    harness report reports/records.json --against main/comparison.json --fail-if 'steps.ratio > 1.2'
    """
    gates = [reports.parse_gate(each) for each in conditions]
    left_out: list[str] = []
    made = reports.made_from(records, benchmarks, left_out)
    moved = reports.changes(reports.Comparison.load(against), made) if against else None
    met = [each for each in (gate.met_by(made) for gate in gates) if each]
    folder.mkdir(parents=True, exist_ok=True)
    reports.write(made, folder, moved)
    echo(reports.text(made, moved))
    echo(
        f"\nWritten: {folder / 'comparison.html'}\nIts folder also has comparison.md, comparison.json and pictures."
    )
    for each in left_out[:LEFT_OUT]:
        echo(f"harness: left out: {each}", err=True)
    if len(left_out) > LEFT_OUT:
        echo(f"harness: left out: {len(left_out) - LEFT_OUT:,} more records", err=True)
    if left_out and gates:
        # A record that cannot be read may be the one that meets a condition.
        met.append("records were left out, so --fail-if cannot be judged; run the trials again")
    for each in met:
        echo(f"harness: {each}", err=True)
    sys.exit(1 if met else 0)


def _measured(scenario: Scenario, rounds: int, size: str) -> dict[str, list[float]]:
    """Return the microseconds per item of each round, by form; the first round warms up and is left out."""
    from harness.lab import Lab  # needs the test extra, which a report does not

    costs: dict[str, list[float]] = {form: [] for form in scenario.form_names}
    bar = TrialBar((rounds + 1) * len(costs), Console(stderr=True))
    with tempfile.TemporaryDirectory() as folder:
        stop = HardStop(Path(folder), "nothing was kept", bar.stop)
        with Lab(Path(folder), size=size) as laboratory, stop:
            try:
                for number in range(rounds + 1):
                    for form in _turn(list(costs), number):
                        bar.begin(form)
                        record = laboratory.run(scenario, form, parse_interruption("none"))
                        if number:
                            costs[form].append(record["elapsed_s"] / record["items"] * 1e6)
                        bar.advance()
            finally:
                bar.stop()
    return costs


def _turn(forms: Sequence[str], number: int) -> list[str]:
    """Return the forms in a different order each round, so that no form profits from its position."""
    first = number % len(forms)
    return [*forms[first:], *forms[:first]]
