"""The page, served by a thread of the test on a port of its own, and a client that asks for it."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import uvicorn
from redis import Redis
from starlette.applications import Starlette

from harness.web import create_app, serving
from tests.workers import PATIENCE


class Site:
    """A page that can be stopped and started again on its port; a context manager that stops it.

    :param settings: of :func:`harness.web.create_app`. :ivar app: the application that is served now.
    """

    def __init__(self, redis: Redis, **settings: Any) -> None:
        self._redis, self._settings = redis, settings
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self.port = 0
        self.app: Starlette

    def __enter__(self) -> Site:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Serve it."""
        self.app = self._settings.get("app") or create_app(self._redis, **self._settings)
        listening = serving.listen("127.0.0.1", self.port, protected=False)
        self.port = listening.getsockname()[1]
        self._server = server = serving.server_of(self.app)
        self._thread = threading.Thread(target=self._run, args=(server, listening), name="site")
        self._thread.start()

    @staticmethod
    def _run(server: uvicorn.Server, listening: socket.socket) -> None:
        with listening:
            server.run(sockets=[listening])

    def stop(self) -> None:
        """End it; return when it has ended."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(PATIENCE)
            assert not self._thread.is_alive()
            for thread in threading.enumerate():
                if thread.name == "AnyIO worker thread":  # it was told to end and may not have run yet
                    thread.join(PATIENCE)
        self._server = self._thread = None

    def client(self) -> Client:
        """Return a client that has its own cookies."""
        return Client(self.port)


@dataclass(frozen=True)
class Answer:
    """A response."""

    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def data(self) -> Any:
        """The JSON in it."""
        return json.loads(self.text)


class Client:
    """Asks for pages as a browser does.

    :ivar cookie: as the server has set it. :ivar token: of the latest page.
    """

    def __init__(self, port: int) -> None:
        self.port, self.cookie, self.token = port, "", ""

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: str | bytes | None = None,
    ) -> Answer:
        """Ask once, on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        sent = {"Cookie": self.cookie, **(headers or {})} if self.cookie else dict(headers or {})
        try:
            connection.request(method, path, body, {name: value for name, value in sent.items() if value})
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        return Answer(response.status, response.headers, text)

    def get(self, path: str, **headers: str) -> Answer:
        """Get a page, and keep its cookie and its token."""
        answer = self.ask("GET", path, {name.replace("_", "-"): value for name, value in headers.items()})
        if cookie := answer.headers.get("Set-Cookie"):
            self.cookie = cookie.partition(";")[0]
        if found := re.search(r'<meta name="csrf" content="(\w+)">', answer.text):
            self.token = found[1]
        return answer

    def post(self, path: str, headers: Mapping[str, str] | None = None, /, **fields: str) -> Answer:
        """Send a form as the page does, with cookie and token; get them first if there are none."""
        if not self.token and headers is None:
            self.get("/")
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        form = urlencode({"token": self.token, **fields})
        return self.ask("POST", path, {**kind, **(headers or {})}, form)

    def act(self, action: str, job_id: str, value: str = "") -> Answer:
        """Carry out an action on a job."""
        return self.post("/act", action=action, job=job_id, value=value)

    @contextmanager
    def events(
        self, path: str = "/events", headers: Mapping[str, str] | None = None
    ) -> Iterator[Iterator[tuple[str, Any]]]:
        """Open a stream, and yield its events: name and data."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            cookie = {"Cookie": self.cookie} if self.cookie else {}
            connection.request("GET", path, headers={**cookie, **(headers or {})})
            response = connection.getresponse()
            assert response.status == 200, response.read()
            yield _events(response)
        finally:
            connection.close()


def _events(response: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
    name = ""
    while line := response.readline():
        kind, _, value = line.decode().rstrip("\n").partition(": ")
        if kind == "event":
            name = value
        elif kind == "data":
            yield name, json.loads(value)


def until(events: Iterator[tuple[str, Any]], seen: Any) -> dict[str, str]:
    """Read changes until *seen* of all parts so far is true; return the parts."""
    parts: dict[str, str] = {}
    limit = time.monotonic() + PATIENCE
    for name, data in events:
        if name == "change":
            parts |= data["parts"]
            if seen(parts):
                return parts
        assert time.monotonic() < limit, f"it never came; the parts are {parts}"
    raise AssertionError("the stream has ended")
