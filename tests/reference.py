"""Reference of every command and public name, made from click and from docstrings: ``python -m tests.reference``."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
from _pytest.fixtures import FixtureFunctionDefinition

from harness import IterationJob, errors, pytest_plugin
from harness.cli.app import MODULES, SECTIONS
from harness.cli.app import main as command
from harness.job import Job

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
WIDTH = 80
LONGEST_DEFAULT = 60

HEAD = """# Reference

Every command, every pytest fixture and every public name. This page is made from the program itself by
`python -m tests.reference`; do not edit it.

The package exports what you write jobs with: `from harness import IterationJob`. Import other names from their modules.
"""

PARTS: Sequence[tuple[str, str, str]] = (
    ("harness", "what you write jobs with", ""),
    ("harness.queues.rq", "the queue", ""),
    ("harness.queues.celery", "Celery as the queue", "install enqueue signature"),
    ("harness.queues.dramatiq", "Dramatiq as the queue", "install enqueue message"),
    ("harness.stores.rq_meta", "progress in the RQ job, the default on RQ", "RQMetaStore"),
    ("harness.stores.redis", "progress in keys of its own in Redis", "RedisStore"),
    ("harness.stores.sql", "progress in a database", "SqlStore progress_tables"),
    ("harness.stores.memory", "progress in memory", "MemoryStore"),
    ("harness.progress", "what a store keeps", "Progress Store TransactionalStore"),
    ("harness.concurrency.kept_items", "items that a record names", "Quarantined Beyond"),
    ("harness.durability", "when progress is saved", "Durability parse_durability"),
    ("harness.stops", "what stops a job", "Flag any_of throttled Count Every Elapsed Share AtStep AfterStep"),
    (
        "harness.interruptions",
        "interruptions by name",
        "parse_interruption interrupt_during_step interrupt_after_step",
    ),
    ("harness.explore", "the explorer", ""),
    ("harness.scenario", "scenarios", "Scenario Effects"),
    ("harness.events", "events", ""),
    ("harness.errors", "errors", "*"),
)
"""Modules with their headings and their public names: those listed, else all of ``__all__``; of errors, all errors."""

INTERNAL = {
    "check_arguments", "run_pattern", "within", "ended_early", "line", "traceback_of", "at_start",
}  # fmt: skip
"""Members that are public for other modules of the package, and of no use to a job."""

_CODE = re.compile(r" ?\((?:[CIS]\d+(?: to )?(?:, )?)+\)")
_ROLE = re.compile(r":[a-z]+:`~?!?([^`]+)`")
_FIELD = re.compile(r"^:(param|ivar|raises|cvar) ?([^:]*): ", re.MULTILINE)
_INLINE_FIELD = re.compile(r"(?<!^) (?=:(?:param|ivar|raises) [^:]+: )", re.MULTILINE)


def page() -> str:
    """Return the page."""
    parts = [HEAD, "## Commands\n", *commands(), "## pytest\n", *plugin()]
    documented: set[int] = set()
    for module, title, listed in PARTS:
        parts += [f"## `{module}`: {title}\n", *names(public(module, listed), documented)]
        if module == "harness":
            parts += ["### Policy: attributes of a job class\n", policy()]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def commands() -> Iterator[str]:
    """Yield the help of each command, as ``--help`` shows it."""
    for section, rows in SECTIONS:
        yield f"**{section}:** " + ", ".join(
            f"[{name}](#harness-{name})" for _, listed, _ in rows for name in listed.split(", ")
        )
    context = click.Context(command, info_name="harness", max_content_width=WIDTH, terminal_width=WIDTH)
    for name in MODULES:
        found = command.get_command(context, name)
        assert found is not None
        found._help_option = None  # click keeps the names that it had in the first call, whoever made that
        inner = click.Context(
            found, info_name=name, parent=context, max_content_width=WIDTH, terminal_width=WIDTH,
            help_option_names=["-h", "--help"],
        )  # fmt: skip
        yield f"### harness {name}\n\n```text\n{found.get_help(inner).rstrip()}\n```"


def plugin() -> Iterator[str]:
    """Yield the fixtures, markers and options of the pytest plugin."""
    for name, value in vars(pytest_plugin).items():
        if isinstance(value, FixtureFunctionDefinition) and not name.startswith("_"):
            yield f"### fixture `{name}`\n\n{prose(value)}"
    rows = [
        f"| `{name}` | {settings['help'].replace('%%', '%').replace('|', chr(92) + '|')} |"
        for name, settings in pytest_plugin.OPTIONS.items()
    ]
    yield "### Options\n\n| option | meaning |\n| --- | --- |\n" + "\n".join(rows)


def names(found: Sequence[tuple[str, Any]], documented: set[int]) -> Iterator[str]:
    """Yield the reference entries of public names that were not documented before."""
    for name, value in found:
        if id(value) not in documented and callable(value):
            documented.add(id(value))
            yield f"### `{name}`\n\n{described(name, value)}"


def public(module: str, listed: str) -> list[tuple[str, Any]]:
    """Return the public names of a module."""
    found = import_module(module)
    if listed == "*":
        chosen = [
            name
            for name, value in vars(found).items()
            if inspect.isclass(value) and issubclass(value, errors.HarnessError | errors.Interrupt)
        ]
    else:
        chosen = listed.split() or found.__all__
    return [(name, getattr(found, name)) for name in chosen]


def policy() -> str:
    """Return a table of the attributes that a job class may set, with their defaults and docstrings."""
    rows = ["| attribute | default | meaning |", "| --- | --- | --- |"]
    for kind in (Job, IterationJob):
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(body, ast.ClassDef)
        for assigned, doc in pairwise(body.body):
            if (
                isinstance(assigned, ast.AnnAssign)
                and assigned.value is not None
                and isinstance(doc, ast.Expr)
                and isinstance(doc.value, ast.Constant)
            ):
                text = " ".join(markdown(inspect.cleandoc(str(doc.value.value))).split())
                rows.append(
                    f"| `{ast.unparse(assigned.target)}` | `{ast.unparse(assigned.value)}` | {text} |"
                )
    return "\n".join(rows)


def described(name: str, value: Any) -> str:
    """Return the signature of a name, its docstring, and those of its public members."""
    text = [f"```text\n{signature(name, value)}\n```\n", prose(value)]
    if inspect.isclass(value) and not issubclass(value, BaseException):
        text += [f"- `{member}`: {summary(each)}" for member, each in members(value)]
    return "\n".join(text)


def members(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties that a class, or a base of this package, defines."""
    # RQ documents what our workers override.
    seen = {name for base in kind.__mro__ if not base.__module__.startswith("harness") for name in vars(base)}
    for base in kind.__mro__:
        if not base.__module__.startswith("harness"):
            continue
        for name, value in vars(base).items():
            raw = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            if (
                name.startswith("_")
                or name in seen | INTERNAL
                or not inspect.isfunction(raw)
                or not raw.__doc__
            ):
                continue
            seen.add(name)
            yield (name if isinstance(value, property) else signature(name, raw, bound=True)), raw


def signature(name: str, value: Any, *, bound: bool = False) -> str:
    """Return how something is called, with defaults and without annotations, which the docstring says in words."""
    try:
        called = inspect.signature(value)
    except (TypeError, ValueError):
        return name
    if inspect.isclass(value) and (issubclass(value, BaseException) or _takes_nothing(called)):
        return name
    parameters = [
        each.replace(annotation=inspect.Parameter.empty, default=_default(each.default))
        for index, each in enumerate(called.parameters.values())
        if not (bound and index == 0)
    ]
    if is_dataclass(value):
        parameters = [each for each in parameters if not each.name.startswith("_")]
    text = str(called.replace(parameters=parameters, return_annotation=inspect.Signature.empty))
    return name + re.sub(r"<(?:class '|function )?([\w.]+)[^>]*>", r"\1", text)


class _Long:
    """Default whose text is too long to read."""

    def __repr__(self) -> str:
        return "…"


def _default(value: Any) -> Any:
    return _Long() if len(repr(value)) > LONGEST_DEFAULT and value is not inspect.Parameter.empty else value


def _takes_nothing(called: inspect.Signature) -> bool:
    return all(each.kind in {each.VAR_POSITIONAL, each.VAR_KEYWORD} for each in called.parameters.values())


def prose(value: Any) -> str:
    """Return a docstring as Markdown."""
    text = inspect.getdoc(value) or ""
    if is_dataclass(value) and text.startswith(f"{getattr(value, '__name__', '')}("):
        return ""  # dataclasses writes one of its own
    return markdown(text) + "\n"


def markdown(text: str) -> str:
    """Return reStructuredText, as docstrings use it, as Markdown."""
    text = _CODE.sub("", _INLINE_FIELD.sub("\n", text))
    text = _ROLE.sub(lambda found: f"`{found[1].rpartition('.')[2]}`", text).replace("``", "`")
    text = re.sub(r"^(.*)::\n\n((?:    .*\n?|\n)+)", _literal, text, flags=re.MULTILINE)
    text = _FIELD.sub(lambda found: f"- {_KINDS[found[1]]}`{found[2]}`: ", text)
    return re.sub(r"(?<=\n)(?<!\n\n)(?=- )", lambda found: _gap(text, found.start()), text).strip()


def _gap(text: str, at: int) -> str:
    """Return an empty line before the first item of a list."""
    before = text[:at].splitlines()[-1]
    return "" if before.startswith(("- ", "  ")) else "\n"


_KINDS = {"param": "", "ivar": "", "cvar": "", "raises": "raises "}


def _literal(found: re.Match[str]) -> str:
    lead = f"{found[1]}:\n\n" if found[1] else ""
    return f"{lead}```text\n{textwrap.dedent(found[2]).strip()}\n```\n\n"


def summary(value: Any) -> str:
    """Return the first paragraph of a docstring, in one line."""
    return " ".join(prose(value).partition("\n\n")[0].split())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
