"""Checks of ``harness verify``: each reports what it found and how to fix it."""

from __future__ import annotations

import os
import platform
import re
import smtplib
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import redis
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from harness.boundary.urls import reason, shown
from harness.cli.settings import DATABASE, engine_of, first_line
from harness.errors import UsageError
from harness.lab.servers import find_postgresql, find_redis
from harness.queues.connections import OLDEST as OLDEST_REDIS
from harness.queues.connections import check_server
from harness.stores.sql import TABLES

DISTRIBUTION = "job-continuation-harness"
OLDEST = (3, 11)
EXTRAS = {
    "": "",
    "cli": ": status, monitor, explain, explore and bars need it",
    "test": ": the pytest fixtures, run with a scenario, bench and the demo need it",
}
"""Extras whose packages are checked, with the features that need them."""

_EXTRA = re.compile(r"extra == ['\"]([\w-]+)")
SECONDS = 3


@dataclass(frozen=True)
class Check:
    """Result of a check.

    :ivar state: ``ok``; ``note`` if the commands work without it; ``bad`` if it needs a fix.
    :ivar mend: how to fix it; empty if no fix is needed.
    """

    name: str
    state: str
    found: str
    mend: str = ""


def checks(redis_url: str, redis_named: bool, database_url: str | None) -> Iterator[Check]:
    """Run all checks in order.

    :param redis_named: True if the user named this Redis; then it must answer.
    """
    yield _python()
    yield from _packages()
    yield _database(database_url)
    yield _redis(redis_url, redis_named)
    yield _servers()
    yield _mail(os.environ.get("HARNESS_SMTP"))
    yield _writing()


def _python() -> Check:
    found = platform.python_version()
    if sys.version_info < OLDEST:
        return Check("Python", "bad", found, f"use Python {OLDEST[0]}.{OLDEST[1]} or newer")
    return Check("Python", "ok", found)


def _packages() -> Iterator[Check]:
    try:
        wanted = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        yield Check(
            "packages", "bad", f"{DISTRIBUTION} is not installed", f"pip install '{DISTRIBUTION}[test]'"
        )
        return
    for extra, need in EXTRAS.items():
        found, missing, old = _installed(
            each for each in wanted if (match[1] if (match := _EXTRA.search(each)) else "") == extra
        )
        name = f"packages of [{extra}]" if extra else "packages"
        if missing or old:
            state = "note" if extra and not old else "bad"
            what = ", ".join([*(f"{each} is missing" for each in missing), *old])
            yield Check(
                name, state, what + need, f"pip install '{DISTRIBUTION}{f'[{extra}]' if extra else ''}'"
            )
        else:
            yield Check(name, "ok", ", ".join(found))


def _installed(requirements: Iterable[str]) -> tuple[list[str], list[str], list[str]]:
    """Return which of the requirements are met, which are missing and which are too old."""
    found, missing, old = [], [], []
    for each in requirements:
        name, least = _wanted(each)
        if name == DISTRIBUTION:
            continue  # this extra includes another one, which has its own check
        try:
            there = version(name)
        except PackageNotFoundError:
            missing.append(name)
            continue
        if _numbers(there) < _numbers(least):
            old.append(f"{name} {there} is older than {least}")
        else:
            found.append(f"{name} {there}")
    return found, missing, old


def _wanted(requirement: str) -> tuple[str, str]:
    match = re.match(r"([\w.-]+)[^>;]*(?:>=([\d.]+))?", requirement)
    return (match[1], match[2] or "0") if match else (requirement, "0")


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)[:3]]


def _database(url: str | None) -> Check:
    if not url:
        return Check(
            "database", "note", f"{DATABASE} is not set: run, demo and tests create their own SQLite files",
            f"for seed and worker: export {DATABASE}=sqlite:///demo.db",
        )  # fmt: skip
    try:
        engine = engine_of(url)
    except UsageError as error:
        return Check("database", "bad", str(error), f"correct {DATABASE}")
    name = shown(url)
    try:
        there = sa.inspect(engine).has_table(TABLES.progress.name)
    except SQLAlchemyError as error:
        return Check("database", "bad", f"{name}: {reason(error, url)}", "start it, or correct the URL")
    finally:
        engine.dispose()
    if not there:
        return Check(
            "database", "note", f"{name} answers; it has no tables for progress", "harness init-db --demo"
        )
    return Check("database", "ok", f"{name} answers; it has the tables for progress")


def _redis(url: str, named: bool) -> Check:
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=SECONDS) as connection:
            info = connection.info()
            check_server(connection)
    except UsageError as old:
        return Check(
            "Redis", "bad", f"{shown(url)}: {old}", f"install Redis {OLDEST_REDIS} or newer, or Valkey"
        )
    except (redis.RedisError, ValueError) as error:
        if named:
            mend = "start it, or correct HARNESS_REDIS_URL"
            return Check("Redis", "bad", f"{shown(url)}: {type(error).__name__}", mend)
        return Check(
            "Redis", "note", f"none at {shown(url)}: run and demo use a private one, or fakeredis in their process",
            "for enqueue, worker and monitor: start a Redis, or export HARNESS_REDIS_URL=redis://…",
        )  # fmt: skip
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        return Check(
            "Redis", "bad", f"{shown(url)} answers, but may evict keys ({policy})",
            "redis-cli config set maxmemory-policy noeviction",
        )  # fmt: skip
    return Check("Redis", "ok", f"{shown(url)} answers, version {info.get('redis_version', '?')}")


def _servers() -> Check:
    found = [str(program) for program in (find_redis(), find_postgresql()) if program]
    if find_redis() is None:
        return Check(
            "servers", "note", "no redis-server on the path: trials run in one process, and no process is killed",
            "install Redis or Valkey",
        )  # fmt: skip
    return Check("servers", "ok", f"trials can start their own: {', '.join(found)}")


def _mail(peer: str | None) -> Check:
    if not peer:
        return Check(
            "mail", "note", "HARNESS_SMTP is not set: run, demo and tests start their own mail server",
            "for the emails of a worker: export HARNESS_SMTP=127.0.0.1:2525",
        )  # fmt: skip
    host, _, port = peer.rpartition(":")
    if not host or not port.isdecimal():
        return Check("mail", "bad", f"HARNESS_SMTP is {peer!r}", "use host:port, such as 127.0.0.1:2525")
    try:
        with smtplib.SMTP(host, int(port), local_hostname="localhost", timeout=SECONDS):
            return Check("mail", "ok", f"{peer} answers")
    except (OSError, smtplib.SMTPException) as error:
        return Check(
            "mail",
            "bad",
            f"{peer}: {first_line(error)}",
            "start a mail server there, or correct HARNESS_SMTP",
        )


def _writing() -> Check:
    refused = []
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            refused.append(f"{folder}: {error.strerror}")
    if refused:
        return Check("files", "bad", "; ".join(refused), "make it writable, or use another folder")
    return Check("files", "ok", "this folder and the temporary one can be written")
