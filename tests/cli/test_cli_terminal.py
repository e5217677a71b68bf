"""Commands on a terminal: a demo is read from its screen, and Ctrl-C leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import select
from contextlib import suppress
from pathlib import Path

import pytest
from redis import Redis

from harness.cli.script import DEMOS
from harness.cli.shows import EMBEDDED
from harness.interruptions import parse_interruption
from harness.progress import Progress
from tests.commands import Terminal, harness, one_line
from tests.workers import PATIENCE

pytestmark = pytest.mark.process


def processes_in(folder: Path) -> dict[int, str]:
    """Return the processes that have the folder in their environment, with their command lines."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"TMPDIR={folder}".encode() in path.read_bytes():
                found[int(path.parent.name)] = (path.parent / "cmdline").read_text()
    return found


def wait_for_the_end_of(pid: int) -> None:
    """Wait until a process that is not a child has ended."""
    with suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        try:
            assert select.select([process], [], [], PATIENCE)[0], f"process {pid} is still there"
        finally:
            os.close(process)


def test_a_demo_is_narrated(tmp_path: Path) -> None:
    """Acts in order, each with its outcome, in the texts written for that mode; no temporary file is left."""
    with Terminal("demo", "orders", "--pace", "fast", "--embedded", folder=tmp_path, lines=60) as terminal:
        assert terminal.end() == 0
        text = " ".join(terminal.text.split())
    assert text.index("1. PLAIN") < text.index("2. STEPS") < text.index("3. ITERATION")
    assert "20 orders were paid twice" in text
    assert "signal:TERM@count:20 20 orders" in text  # a loop has no durability
    assert text.count("all 61 orders were paid exactly once") == 2
    assert EMBEDDED in text
    assert all(act.said(real=False) in text for act in DEMOS["orders"].acts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.sample(1)
@pytest.mark.parametrize("which", ["reports", "emails"])
def test_the_other_demos(which: str) -> None:
    """Without a terminal the demos print the same text, in lines."""
    said = harness("demo", which, "--pace", "fast", "--embedded")
    assert said.exit_code == 0, said.output
    assert said.output.count("exactly once") == 2
    assert "twice" in said.output


STEPPING = ("demo", "orders", "--pace", "fast", "--embedded", "--step")


def test_a_demo_waits_for_a_key(tmp_path: Path) -> None:
    """With ``--step`` each act is told first, and begins when a key is pressed; a bar shows how far it is."""
    with Terminal(*STEPPING, folder=tmp_path, lines=60) as terminal:
        before = terminal.read_until(lambda text: "Press a key" in text)
        assert "1. PLAIN" not in before
        terminal.press_until(b" ", lambda text: "1. PLAIN" in text)
        told = terminal.read_until(lambda text: "Press a key" in text.partition("1. PLAIN")[2])
        assert "paid twice" not in told
        terminal.press_until(b" ", lambda text: "Next: harness demo reports" in text)
        assert terminal.end() == 0
        assert "Press a key" not in terminal.text
        assert "20 orders were paid twice" in " ".join(terminal.text.split())


def test_ctrl_c_ends_a_demo_that_waits_for_a_key(tmp_path: Path) -> None:
    """The terminal is raw then, and the key is no signal; it ends the demo as at any other moment."""
    with Terminal(*STEPPING, folder=tmp_path) as terminal:
        terminal.read_until(lambda text: "Press a key" in text)
        terminal.press_until(b"\x03", lambda text: "nothing was kept" in text)
        assert terminal.end() == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["orders"], ["compare"], ["--web"]])
def test_a_pause_for_a_key_needs_a_terminal(arguments: list[str]) -> None:
    """Where nobody can press a key, and in shows without acts, ``--step`` is one line."""
    assert "--step" in one_line(harness("demo", *arguments, "--step"))


@pytest.mark.parametrize("real", [True, False], ids=["real", "embedded"])
@pytest.mark.parametrize("which", DEMOS)
def test_a_demo_tells_of_a_kill_where_one_is(which: str, real: bool) -> None:
    """The text before an act says "kill" only if the interruption of that act kills a process."""
    acts = DEMOS[which].acts
    told = ["kill" in act.said(real=real).lower() for act in acts]
    assert (
        told == [parse_interruption(act.interruption(real=real)).kills for act in acts] == [real, False, real]
    )
    assert "kill" not in DEMOS[which].intro


def test_a_demo_with_real_workers(tmp_path: Path, redis_url: str) -> None:
    """If a Redis server is installed, the demo kills real processes."""
    del redis_url  # for its skip where none is
    with Terminal("demo", "orders", "--pace", "fast", folder=tmp_path, lines=60) as terminal:
        assert terminal.end() == 0
        text = " ".join(terminal.text.split())
    assert "kill:both@count:33" in text
    assert all(act.said(real=True) in text for act in DEMOS["orders"].acts)
    assert text.count("all 61 orders were paid exactly once") == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("real", "happened"),
    [(["--embedded"], "CUT OFF"), pytest.param([], "KILLED", marks=pytest.mark.full)],
    ids=["embedded", "real"],
)
def test_a_bar_and_a_line_below_an_act_show_its_progress(
    tmp_path: Path, real: list[str], happened: str, request: pytest.FixtureRequest
) -> None:
    """The line reports how many orders are paid, how many twice, a kill, and a job that starts over.

    The bar shows the same, within 80 columns.
    """
    if not real:
        request.getfixturevalue("redis_url")  # for its skip where none is
    line = re.compile(r"of 61 orders, (\d+) paid(?:, (\d+) of them twice)?(?:: (.+))?$", re.MULTILINE)
    bar = re.compile(r"^   ▓+█*░+$", re.MULTILINE)
    seen: list[tuple[str, ...]] = []
    bars: set[str] = set()

    def look(text: str) -> bool:
        seen.extend(line.findall(text))
        bars.update(bar.findall(text))
        return (seen[-1:] or [("", "", "")])[0][1] == "20"

    with Terminal("demo", "orders", *real, folder=tmp_path) as terminal:
        terminal.read_until(look)
        terminal.ctrl_c()
        assert terminal.end() == 130
    before = [(int(paid), twice) for paid, twice, told in seen if not told]
    after = [
        (int(paid), int(twice or 0)) for paid, twice, told in seen if told == f"{happened}, started again"
    ]
    assert bars, "no bar of orders paid twice"
    assert before
    assert all(paid <= 20 and not twice for paid, twice in before)
    assert {paid for paid, twice in after if twice < 20} == {20}


@pytest.mark.full  # `tox run -e demo` makes the same report
def test_the_comparison_makes_a_report(tmp_path: Path) -> None:
    """The finding on the terminal, the report in a folder."""
    said = harness("demo", "compare", "--pace", "fast", "--embedded", "--to", str(tmp_path / "out"))
    assert said.exit_code == 0, said.output
    assert "steps and iteration lost nothing and did nothing twice" in " ".join(said.output.split())
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "comparison.html", "comparison.json", "comparison.md",
    }  # fmt: skip


@pytest.mark.parametrize("arguments", [["orders"], ["compare", "--embedded"]])
def test_other_queues_are_for_the_comparison_with_real_workers(arguments: list[str]) -> None:
    """A show runs on RQ, and so does all that is embedded."""
    said = one_line(harness("demo", *arguments, "--queue", "celery"))
    assert "--queue celery is for compare with real workers" in said


@pytest.mark.full
def test_the_comparison_sets_queues_side_by_side(tmp_path: Path, redis_url: str) -> None:
    """On each queue steps and iteration do everything once, and the plain loop does not."""
    del redis_url  # for its skip where none is
    said = harness("demo", "compare", "--queue", "all", "--pace", "fast", "--to", str(tmp_path / "out"))
    assert said.exit_code == 0, said.output
    assert "## Queues side by side" in (tmp_path / "out" / "comparison.md").read_text()
    for queue in ("RQ", "Celery", "Dramatiq"):
        assert re.search(rf"^iteration {queue}, redis +exactly once", said.output, re.MULTILINE)
        assert re.search(rf"^plain +{queue}, redis +(never finished|duplicated)", said.output, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        pytest.param(
            ["demo", "emails", "--embedded"],
            "nothing was kept: the demo used private services",
            marks=pytest.mark.full,
        ),
        (["demo", "emails"], "nothing was kept: the demo used private services"),
        pytest.param(
            ["run", "scenarios.emails", "--pace", "0.05"], "nothing was kept", marks=pytest.mark.full
        ),
        (["bench", "scenarios.emails", "--size", "full"], "nothing was kept"),
    ],
    ids=["embedded", "real", "run", "bench"],
)
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, arguments: list[str], kept: str) -> None:
    """No process, no file, exit code 130, and a line that says what was kept."""
    with Terminal(*arguments, folder=tmp_path) as terminal:
        terminal.read_until(lambda _: bool(list(tmp_path.glob("*/*.db"))))  # it has begun
        terminal.ctrl_c()
        assert terminal.end() == 130
        assert f"harness: stopped; {kept}" in terminal.text.splitlines()
    assert list(tmp_path.iterdir()) == []
    assert processes_in(tmp_path) == {}


def test_ctrl_c_says_that_records_are_complete_where_there_are_some(tmp_path: Path) -> None:
    """They are above."""
    with Terminal("run", "scenarios.orders", "--pace", "0.05", folder=tmp_path) as terminal:
        terminal.read_until(lambda text: "exactly once" in text)
        terminal.ctrl_c()
        assert terminal.end() == 130
        assert "harness: stopped; the records above are complete; nothing else was kept" in terminal.text


def test_ctrl_c_does_not_wait_for_a_plain_job(tmp_path: Path, redis_url: str) -> None:
    """A plain job does not react to a shutdown, and its worker would wait hours for its end."""
    del redis_url  # for its skip where none is
    arguments = ["run", "scenarios.emails", "--broker", "redis", "--pace", "100"]
    with Terminal(*arguments, folder=tmp_path) as terminal:
        terminal.read_until(
            lambda _: any('"mark"' in each.read_text() for each in tmp_path.glob("*/journal"))
        )
        terminal.ctrl_c()
        assert terminal.end() == 130
    assert processes_in(tmp_path) == {}


def test_a_killed_command_leaves_no_process(tmp_path: Path, redis_url: str, broker: Redis) -> None:
    """A worker and its horse notice that the lab is gone, though their Redis is not."""
    del broker  # empty again after the test
    arguments = ["run", "scenarios.emails", "--broker", redis_url, "--interrupt", "kill:worker@count:5000"]
    with Terminal(*arguments, "--pace", "0.5", folder=tmp_path) as terminal:
        terminal.read_until(lambda _: any(path.stat().st_size for path in tmp_path.glob("*/journal")))
        others = processes_in(tmp_path)
        terminal.process.kill()
        for pid in others:
            wait_for_the_end_of(pid)
        assert processes_in(tmp_path) == {}


def test_a_trials_own_interrupt_is_no_ctrl_c() -> None:
    """signal:INT reaches the job, and the command goes on."""
    said = harness("run", "scenarios.orders", "--form", "steps", "--interrupt", "signal:INT@count:20")
    assert (said.exit_code, "exactly once" in said.output) == (0, True)


def test_ctrl_c_in_a_job_says_where_it_was(tmp_path: Path) -> None:
    """A job run here and now: its progress is gone, or where its store keeps it."""
    with Terminal("run", "tests.worker_jobs:Endless", str(tmp_path / "begun"), folder=tmp_path) as terminal:
        terminal.read_until(lambda _: (tmp_path / "begun").exists())
        terminal.ctrl_c()
        assert terminal.end() == 130
        said = "".join(terminal.text.split())  # it depends on the number of items where a line is broken
        assert "thecursorwasonlyinmemoryandislost" in said
        assert "━" not in terminal.text


def test_ctrl_c_ends_a_worker_after_its_job(redis_url: str, broker: Redis, tmp_path: Path) -> None:
    """The job stops at its next checkpoint, and is back in its queue."""
    harness("enqueue", "tests.worker_jobs:UntilReleased", "--id", "long", "--redis", redis_url)
    with Terminal("worker", "--redis", redis_url, folder=tmp_path) as terminal:
        assert broker.blpop(["done:long"], PATIENCE) is not None
        terminal.ctrl_c()
        assert terminal.end() == 0
        assert "an unfinished job is back in its queue" in " ".join(terminal.text.split())
    assert broker.lrange("rq:queue:default", 0, -1) == [b"long"]


def test_a_job_that_runs_here_ends_with_its_progress() -> None:
    """The progress is printed as JSON that a store could read."""
    said = harness("run", "tests.jobs:CountInSteps", "9", "--durability", "every(items=2)", "--json")
    assert Progress.from_json(json.loads(said.output)["id"], said.output).done == 9
