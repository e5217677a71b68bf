"""One audit hook of the interpreter: it feeds the probes of files, and reports effects that no probe watches.

Python cannot remove an audit hook. So the first exploration adds one hook, which does nothing between explorations.
It ignores the events that it causes itself. Reads and imports are never reported.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from harness.explore.crash import SimulatedProcess, current, is_accounted
from harness.explore.probes import drivers, files, sockets
from harness.explore.probes.callers import caller

_state = {"hooked": False, "active": False}
_local = threading.local()

Handler = Callable[[SimulatedProcess, str, tuple[Any, ...]], None]


@contextmanager
def probes() -> Iterator[None]:
    """Receive audit events until the block ends."""
    files.prepare()
    if not _state["hooked"]:
        sys.addaudithook(_hook)
        _state["hooked"] = True
    _state["active"] = True
    try:
        yield
    finally:
        _state["active"] = False


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not _state["active"]:
        return
    handler = HANDLERS.get(event)
    if handler is None:
        return
    simulated = current()
    if simulated is None or simulated.dead or getattr(_local, "inside", False):
        return
    if is_accounted() and handler is not _socket:
        return
    _local.inside = True
    try:
        handler(simulated, event, args)
    finally:
        _local.inside = False


def _process(simulated: SimulatedProcess, event: str, args: tuple[Any, ...]) -> None:
    found = caller()
    if found is None:
        return
    if event == "os.exec":
        simulated.reach("leave", "replaces its process")
        simulated.die("replaces its process")
    program = args[0] if event != "os.system" else "a shell"
    if program is None and len(args) > 1 and args[1]:
        program = args[1][0]
    name = files.text(program).rpartition("/")[2]  # without its arguments, which may contain a secret
    simulated.unseen("process", f"{event} runs {name}", found.line)


def _signal(simulated: SimulatedProcess, event: str, args: tuple[Any, ...]) -> None:
    number = args[-1]
    found = caller()
    if number == 0 or found is None:
        return  # signal 0 only asks whether a process exists
    if event == "os.kill" and args[0] == files.own_pid() and number == signal.SIGKILL:
        simulated.reach("leave", "kills its process")
        simulated.die("kills its process")
    simulated.unseen("signal", f"{event} sends signal {int(number)}", found.line)


def _sqlite(simulated: SimulatedProcess, event: str, args: tuple[Any, ...]) -> None:
    database = files.text(args[0])
    found = caller()
    if found is not None and database and ":memory:" not in database:
        simulated.unseen("sqlite3", f"{event} to {database.rpartition('/')[2].partition('?')[0]}", found.line)


def _socket(simulated: SimulatedProcess, event: str, args: tuple[Any, ...]) -> None:
    sockets.used(simulated, event, args[0])


def _mapped(simulated: SimulatedProcess, event: str, args: tuple[Any, ...]) -> None:
    number, _, access = args[:3]
    found = caller()
    if number != -1 and access not in {1, 3} and found is not None:  # neither ACCESS_READ nor ACCESS_COPY
        simulated.unseen("mmap", f"{event} maps a file for writing", found.line)


def _native(simulated: SimulatedProcess, event: str, args: tuple[Any, ...]) -> None:
    found = caller()
    if found is not None and found.library == "ctypes" and found.line:
        simulated.unseen("ctypes", f"{event} {files.text(args[-1])[:40]}", found.line)


def _imported(simulated: SimulatedProcess, event: str, args: tuple[Any, ...]) -> None:
    """Report a client in C that is loaded too late to be hooked, unless SQLAlchemy loads it for its own use."""
    name = files.text(args[0])
    if name in drivers.SILENT and sys.modules.get(name) is None:
        found = caller()
        if found is not None and found.library != "sqlalchemy":
            simulated.unseen(name, f"{event}ed while the job runs, too late to be watched", found.line)


def _other(simulated: SimulatedProcess, event: str, args: tuple[Any, ...]) -> None:
    del args
    found = caller()
    if found is not None:
        simulated.unseen(event.partition(".")[0], f"calls {event}", found.line)


REPORTED: dict[str, Handler] = {
    **dict.fromkeys(
        ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "os.startfile/2",
         "pty.spawn", "_winapi.CreateProcess"),
        _process,
    ),
    **dict.fromkeys(("os.kill", "os.killpg", "signal.pthread_kill"), _signal),
    "sqlite3.connect": _sqlite,
    **dict.fromkeys(("socket.connect", "socket.sendto", "socket.sendmsg"), _socket),
    "import": _imported, "mmap.__new__": _mapped,
    **dict.fromkeys(("ctypes.dlopen", "ctypes.dlsym"), _native),
    **dict.fromkeys(("syslog.openlog", "syslog.syslog", "syslog.setlogmask", "socket.sethostname"), _other),
    **dict.fromkeys(
        ("winreg.CreateKey", "winreg.DeleteKey", "winreg.DeleteValue", "winreg.SetValue", "winreg.LoadKey"), _other
    ),
}  # fmt: skip
"""Events of effects that are reported, unless a probe watches the client."""

HANDLERS: dict[str, Handler] = {
    **REPORTED,
    **dict.fromkeys(files.PATHS, files.changed),
    **dict.fromkeys(files.ATTRIBUTES, files.attributes),
    **dict.fromkeys(files.TEMPORARY, files.temporary),
}
"""All events that the hook looks at."""

TOLD_BY_OTHERS = {
    "_thread.start_joinable_thread": "the probe of threads", "_thread.start_new_thread": "the probe of threads",
    "ensurepip.bootstrap": "subprocess", "ftplib.connect": "socket.connect", "ftplib.sendcmd": "socket.send",
    "http.client.connect": "the probe of http.client", "http.client.send": "the probe of http.client",
    "imaplib.open": "socket.connect", "imaplib.send": "socket.send", "nntplib.connect": "socket.connect",
    "nntplib.putline": "socket.send", "os.fork": "the probe of processes", "os.forkpty": "the probe of processes",
    "os.ftruncate": "open", "poplib.connect": "socket.connect", "poplib.putline": "socket.send",
    "shutil.chown": "os.chown", "shutil.copyfile": "open", "shutil.copymode": "open", "shutil.copystat": "open",
    "shutil.copytree": "os.mkdir", "shutil.make_archive": "open", "shutil.move": "os.rename",
    "shutil.rmtree": "os.rmdir", "shutil.unpack_archive": "open", "smtplib.connect": "the probe of mails",
    "smtplib.send": "the probe of mails", "socket.bind": "socket.send", "sqlite3.connect/handle": "sqlite3.connect",
    "telnetlib.Telnet.open": "socket.connect", "telnetlib.Telnet.write": "socket.send",
    "urllib.Request": "the probe of http.client", "webbrowser.open": "subprocess.Popen",
}  # fmt: skip
"""Events that need no handler, each with the probe that sees the same effect."""

HARMLESS = {
    "code of this process": (
        "array.__new__", "builtins.breakpoint", "builtins.id", "builtins.input", "builtins.input/result",
        "code.__new__", "compile",
        "cpython.PyInterpreterState_Clear", "cpython.PyInterpreterState_New", "cpython._PySys_ClearAuditHooks",
        "cpython.remote_debugger_script", "cpython.run_command", "cpython.run_file", "cpython.run_interactivehook",
        "cpython.run_module", "cpython.run_startup", "cpython.run_stdin", "cpython._remote_debugging", "exec",
        "function.__new__", "gc.get_objects", "gc.get_referents", "gc.get_referrers", "marshal.dumps",
        "marshal.load", "marshal.loads", "monitoring.register_callback", "object.__delattr__", "object.__getattr__",
        "object.__setattr__", "pdb.Pdb", "pickle.find_class", "setopencodehook", "sys._current_exceptions",
        "sys._current_frames", "sys._getframe", "sys._getframemodulename", "sys.addaudithook", "sys.excepthook",
        "sys.monitoring.register_callback", "sys.remote_exec", "sys.set_asyncgen_hooks_finalizer",
        "sys.set_asyncgen_hooks_firstiter", "sys.setprofile", "sys.settrace", "sys.unraisablehook",
        "_posixsubprocess.fork_exec", "os.chdir", "os.putenv", "os.unsetenv", "os.utime", "os.add_dll_directory",
        "resource.prlimit", "resource.setrlimit", "faulthandler.register", "time.sleep", "cpython.exec",
    ),
    "reading": (
        "fcntl.ioctl", "glob.glob", "glob.glob/2", "os.fwalk", "os.getxattr", "os.listdir", "os.listdrives",
        "os.listmounts", "os.listvolumes", "os.listxattr", "os.scandir", "os.walk", "pathlib.Path.glob",
        "pathlib.Path.rglob", "socket.__new__", "socket.getaddrinfo", "socket.gethostbyaddr",
        "socket.gethostbyname", "socket.gethostname", "socket.getnameinfo", "socket.getservbyname",
        "socket.getservbyport", "sqlite3.enable_load_extension", "sqlite3.load_extension", "winreg.ConnectRegistry",
        "winreg.DisableReflectionKey", "winreg.EnableReflectionKey", "winreg.EnumKey", "winreg.EnumValue",
        "winreg.ExpandEnvironmentStrings", "winreg.OpenKey", "winreg.OpenKey/result", "winreg.PyHKEY.Detach",
        "winreg.QueryInfoKey", "winreg.QueryReflectionKey", "winreg.QueryValue", "winreg.SaveKey",
        "_winapi.OpenProcess", "msvcrt.get_osfhandle", "msvcrt.open_osfhandle",
    ),
    "gone with the process": (
        "_winapi.CreateFile", "_winapi.CreateJunction", "_winapi.CreateNamedPipe", "_winapi.CreatePipe",
        "_winapi.TerminateProcess", "fcntl.fcntl", "fcntl.flock", "fcntl.lockf", "msvcrt.locking", "os.lockf",
        "syslog.closelog",
    ),
    "a call into C that ctypes.dlopen and ctypes.dlsym tell of": (
        "ctypes.addressof", "ctypes.call_function", "ctypes.cdata", "ctypes.cdata/buffer",
        "ctypes.create_string_buffer", "ctypes.create_unicode_buffer", "ctypes.dlsym/handle", "ctypes.get_errno",
        "ctypes.get_last_error", "ctypes.memoryview_at", "ctypes.seh_exception", "ctypes.set_errno",
        "ctypes.set_exception", "ctypes.set_last_error", "ctypes.string_at", "ctypes.wstring_at",
    ),
}  # fmt: skip
"""Events that are no external effects, or whose effect a crash cannot repeat."""
