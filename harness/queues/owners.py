"""Processes of an execution, so that another process on the same machine sees immediately that they crashed.

A lease shows a crash when it expires. If the work horse and its worker die together, as at the end of a grace
period, a new worker on the same machine does not have to wait for the expiry: the kernel reports that the
processes are gone.

The hash ``harness:owners`` holds one text for each execution, ``<boot id>/<namespaces> <pid>:<start time> …``, with
the horse and its worker. Processes are gone if they were on this machine since its last boot, in this process's
namespaces for pids and times, and no process with that pid and that start time exists. A container has a pid namespace
of its own, and so has a restarted one: for these the lease decides, as for other machines. A stopped process exists.

Crash before the write, or a lost answer: the execution has no owner, and its lease decides.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_PROC = Path("/proc")


def owner(worker_pid: int | None) -> str | None:
    """Return the text for an execution of this process; None if the kernel does not provide the facts.

    :param worker_pid: pid of the worker that waits for this process, None if it is this one.
    """
    return _own() if worker_pid in {None, os.getpid()} else _owner({os.getpid(), worker_pid or 0})


@cache
def _own() -> str | None:
    """Return the text for this process alone, which stays the same while it lives."""
    return _owner({os.getpid()})


os.register_at_fork(after_in_child=_own.cache_clear)


def _owner(pids: set[int]) -> str | None:
    machine = here()
    if machine is None:
        return None
    found = [f"{pid}:{_start(pid)}" for pid in pids]
    return None if any(each.endswith(":None") for each in found) else " ".join([machine, *found])


def here() -> str | None:
    """Return the boot id and the namespaces of this process; None if there are none, as on macOS."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{_namespace('pid')}/{_namespace('time')}"
    except OSError:
        return None


def _namespace(kind: str) -> str:
    link = _PROC / "self/ns" / kind
    return str(link.readlink()) if link.is_symlink() else ""  # kernels before 5.6 have one time for all


def are_gone(text: str, machine: str) -> bool:
    """Return whether all processes in the text of an execution are certainly gone.

    :param machine: :func:`here` of this process. Processes of another machine, or of an unreadable text, are
        not.
    """
    where, *processes = text.split(" ")
    if where != machine or not processes:
        return False
    return all(_is_gone(each) for each in processes)


def _is_gone(process: str) -> bool:
    pid, _, start = process.partition(":")
    if not (pid.isdecimal() and start.isdecimal() and 0 < int(pid) < 2**31):
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # another user's: it exists
    found = _start(int(pid))
    return found is not None and found != int(start)


def _start(pid: int) -> int | None:
    """Return the start of a process in clock ticks since boot, 0 for one that has ended; None if it is hidden."""
    try:
        # The name, in parentheses, may hold any characters.
        fields = (
            (_PROC / str(pid) / "stat")
            .read_text(encoding="utf-8", errors="replace")
            .rpartition(")")[2]
            .split()
        )
        state, start = fields[0], int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
    return 0 if state in {"Z", "X", "x"} else start
