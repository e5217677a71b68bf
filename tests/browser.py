"""A headless Chromium, driven as its developer tools drive it: by messages over a pair of pipes."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.workers import PATIENCE

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
KEYS: dict[str, dict[str, Any]] = {
    "Tab": {"windowsVirtualKeyCode": 9},
    "Enter": {"windowsVirtualKeyCode": 13, "text": "\r"},
    "Shift+Tab": {"windowsVirtualKeyCode": 9, "modifiers": 8},
    "ArrowRight": {"windowsVirtualKeyCode": 39},
    "Backspace": {"windowsVirtualKeyCode": 8},
}


class Browser:
    """A browser with one page at a time; a context manager that ends it.

    :param chromium: the program. :param folder: for its profile and its log.
    """

    def __init__(self, chromium: str, folder: Path) -> None:
        self._number, self._session = 0, dict[str, str]()
        self._unread, self._events = b"", deque[dict[str, Any]]()
        asked, self._to = _pipe()
        self._from, told = _pipe()
        command = [chromium, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}"]
        with (folder / "browser.log").open("wb") as log:
            # The browser reads at 3 and writes at 4, whatever the pipes' numbers are here. It is a child of a shell
            # that ends immediately, and not of this process: a test that leaves a child behind fails.
            shell = subprocess.Popen(
                ["/bin/bash", "-c", f'"$@" 3<&{asked} 4>&{told} &', "bash", *command],
                pass_fds=(asked, told), stderr=log, start_new_session=True,
            )  # fmt: skip
        self._group = shell.pid
        shell.wait()
        os.close(asked)
        os.close(told)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        """End it and all its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self._group, signal.SIGKILL)
        while os.read(self._from, 1 << 20):  # until no process holds the other end
            pass
        os.close(self._to)
        os.close(self._from)

    @contextmanager
    def page(self) -> Iterator[Browser]:
        """Open a page that nothing was shown in yet, and close it with the block."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        before, self._session = self._session, {"sessionId": session}
        for part in ("Page", "Runtime", "Log"):
            self.call(f"{part}.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)
        try:
            yield self
        finally:
            self._session = {}
            self.call("Target.closeTarget", targetId=target)
            self._session = before

    def show(self, path: Path, width: int, height: int, scheme: str, media: str = "screen") -> None:
        """Open a file in a window of that many pixels.

        :param scheme: ``light`` or ``dark``. :param media: or ``print``.
        """
        self.open(path.as_uri(), width, height, scheme, media)

    def open(self, url: str, width: int, height: int, scheme: str = "light", media: str = "screen") -> None:
        """Open an address in a window of that many pixels, as :meth:`show` does with a file."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        preference = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", media=media, features=[preference])
        self._events.clear()
        self.call("Page.navigate", url=url)
        while not any(each["method"] == "Page.loadEventFired" for each in self._events):
            self._events.append(self._read())

    @property
    def complaints(self) -> list[dict[str, Any]]:
        """Return the errors, and all console output since the page was opened."""
        kinds = {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"}
        return [each for each in self._events if each["method"] in kinds]

    def press(self, key: str) -> None:
        """Press and release a key; return when the page has handled it."""
        name = key.rpartition("+")[2]
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, **KEYS[key])

    def picture(self) -> str:
        """Return a screenshot of the window, as a PNG in Base64."""
        return str(self.call("Page.captureScreenshot")["data"])

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression in the page, or of the promise that it is."""
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Have the browser do something, and return its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params, **self._session}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])
            self._events.append(answer)

    def _read(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._from], [], [], max(0.0, until - time.monotonic()))
            assert ready, "the browser does not answer"
            data = os.read(self._from, 1 << 20)
            assert data, "the browser has ended"
            self._unread += data
        message, _, self._unread = self._unread.partition(b"\0")
        return dict(json.loads(message))


def _pipe() -> tuple[int, int]:
    """Open a pipe whose numbers are neither 3 nor 4."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return high[0], high[1]
