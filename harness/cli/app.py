"""The command ``harness``: help on one screen, errors of one line, and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from harness.cli.output import echo
from harness.cli.stopping import Stopped, last_line
from harness.errors import HarnessError, UsageError

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
DISTRIBUTION = "job-continuation-harness"
EXTRAS = {
    "jinja2": "cli", "markupsafe": "cli", "rich": "cli", "aiosmtpd": "test", "fakeredis": "test", "pytest": "test",
    "pytest_benchmark": "test", "xdist": "test", "starlette": "web", "uvicorn": "web", "prometheus_client": "web",
}  # fmt: skip
"""Packages that only some commands need, and the extra that installs each."""

GOOD, BAD_VERDICT, BAD_USAGE, STOPPED = 0, 1, 2, 130

SECTIONS: Sequence[tuple[str, Sequence[tuple[str, str, str]]]] = (
    ("prepare", (
        ("prepare", "verify", "Check Python, packages, database, Redis, mail"),
        ("prepare", "init-db", "Create the tables for progress and the demo"),
        ("prepare", "seed, reset", "Fill the demo's tables; drop all tables"),
        ("prune", "prune", "Remove old progress and history"),
    )),
    ("run", (
        ("work", "enqueue", "Put a job into a queue"),
        ("work", "worker", "Run the jobs of queues"),
        ("run", "run", "Run a job with interruptions; check the result"),
        ("demo", "demo", "Demos: orders, reports, emails, compare"),
    )),
    ("steer", (
        ("steer", "interrupt", "Stop a running job by request, signal or kill"),
        ("steer", "pause, resume, cancel", "Pause, resume or end a job"),
        ("steer", "requeue, rewind, fork", "Requeue a job that is over; repeat a part of it"),
        ("steer", "recover", "Requeue the jobs of crashed workers"),
        ("steer", "scale", "Give a parallel job more or fewer instances"),
    )),
    ("watch", (
        ("watch", "status, monitor", "Jobs and the cost of a kill, once or live"),
        ("web", "web", "The same on a web page, with buttons; --demo"),
        ("watch", "explain", "Timeline of one job, with its interruptions"),
    )),
    ("judge", (
        ("explore", "explore", "Crash a job at every point; name the wrong lines"),
        ("judge", "bench", "Measure the cost of steps and iteration"),
        ("judge", "report", "Make a report from the records of trials"),
    )),
)  # fmt: skip
"""Commands by purpose: the module in :mod:`harness.cli`, the names on one line of the help, and its text."""

MODULES = {
    name: f"harness.cli.{module}"
    for _, rows in SECTIONS
    for module, names, _ in rows
    for name in names.split(", ")
}


@contextmanager
def needing(command: str = "web") -> Iterator[None]:
    """Import packages that only some commands need within this block.

    :raises UsageError: if a package is not installed, with the extra that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        extra = EXTRAS.get(name)
        if extra is None:
            raise
        raise UsageError(
            f"harness {command} needs {name}, which is not installed; "
            f"run pip install '{DISTRIBUTION}[{extra}]'"
        ) from None


class Commands(click.Group):
    """Command group that loads a command's module when it is called, and prints each error in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands in the order of the help."""
        del ctx
        return list(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command.

        :raises UsageError: if a package that it needs is not installed.
        """
        del ctx
        if cmd_name not in MODULES:
            return None
        with needing(cmd_name):
            module = import_module(MODULES[cmd_name])
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands that begin with the text, without loading their modules."""
        rows = [(names, text) for _, rows in SECTIONS for _, names, text in rows]
        found = [
            CompletionItem(name, help=text)
            for names, text in rows
            for name in names.split(", ")
            if name.startswith(incomplete)
        ]
        return found or click.Command.shell_complete(self, ctx, incomplete)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help, 24 lines of 80 columns at most."""
        formatter.write(
            f"Usage: {ctx.command_path} COMMAND [OPTIONS] …    long jobs that survive a deploy\n\n"
        )
        for section, rows in SECTIONS:
            for index, (_, names, text) in enumerate(rows):
                formatter.write(f"{section if index == 0 else '':8}{names:22} {text}\n")
        formatter.write(
            "\nharness COMMAND --help has examples. Exit: 0 good, 1 bad verdict, 2 wrong usage.\n"
            'Completion: eval "$(_HARNESS_COMPLETE=bash_source harness)" (zsh_, fish_source)\n'
        )

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; usage errors refer to its own help."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            name = ctx.invoked_subcommand
            if error.ctx is None and name is not None:  # click sets no context while it parses options
                command = self.get_command(ctx, name)
                assert command is not None  # noqa: S101 - the command exists, because click parsed its options
                error.ctx = click.Context(command, info_name=name, parent=ctx)
            raise

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run, and end the process with the exit code."""
        kwargs["standalone_mode"] = False
        try:
            code: Any = super().main(*args, **kwargs)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(BAD_USAGE)
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "harness"
            _say(f"{_one_line(error.format_message())} See {command} --help")
            sys.exit(BAD_USAGE)
        except HarnessError as error:
            _say(str(error))
            sys.exit(BAD_USAGE)
        except Stopped as stopped:
            last_line(str(stopped))
            sys.exit(STOPPED)
        except click.Abort:
            _say("stopped")
            sys.exit(STOPPED)
        except Exception as error:
            # The class is not imported: importing redis would double the time of --help.
            if not any(base.__module__ == "redis.exceptions" for base in type(error).__mro__):
                raise
            _say(f"the connection to Redis broke: {type(error).__name__}: {error}")
            sys.exit(BAD_USAGE)
        sys.exit(code if isinstance(code, int) else GOOD)


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if line.endswith((".", "?", "!")) else f"{line}."


def _say(text: str) -> None:
    echo(f"harness: {' '.join(text.split())}", err=True)


@click.group("harness", cls=Commands, context_settings=CONTEXT)
@click.version_option(package_name=DISTRIBUTION, message="%(package)s %(version)s")
def main() -> None:
    """Interrupt long jobs, resume them, and report whether anything was lost or done twice."""
    if "" not in sys.path:  # import a user's jobs from the current folder, as python -m does
        sys.path.insert(0, "")
