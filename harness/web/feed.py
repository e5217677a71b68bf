"""One read of Redis for all viewers, at most twice a second, and the stream of changes for each viewer.

Without viewers there are no reads. A read is rendered once, in parts; a viewer gets all parts when it
connects, and then the changed ones. A viewer that is too slow for a change gets all parts again, so that no
queue grows.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from harness.boundary.texts import error_text
from harness.errors import HarnessError
from harness.web.access import Refused

if TYPE_CHECKING:
    from harness.monitor.snapshot import Detail, Monitor, Snapshot

LOOK_SECONDS = 0.5
"""Minimum seconds between two reads."""

QUIET_SECONDS = 15.0
"""Seconds after which an idle stream sends a comment, so that a closed connection is noticed."""

VIEWERS, WATCHED = 200, 50
"""Maximum numbers of open streams, and of jobs watched in detail."""

LIST = ""
"""Topic of the list of jobs; all others are ids of jobs."""

log = logging.getLogger("harness.web")


@dataclass(frozen=True)
class Look:
    """Result of the latest read.

    :ivar at: its end, in seconds of this process's monotonic clock. :ivar took_s: its duration in seconds.
        :ivar snapshot: snapshot of the latest successful read; None before the first. :ivar details: jobs by
        id. :ivar asked: ids of the jobs requested in detail. :ivar error: reason why the latest read failed.
    """

    at: float
    took_s: float
    snapshot: Snapshot | None
    details: dict[str, Detail]
    asked: frozenset[str]
    error: str | None = None


@dataclass(frozen=True)
class Parts:
    """Page in parts.

    :ivar order: keys of the parts that are rows, in their order. :ivar parts: HTML by key.
    """

    order: tuple[str, ...]
    parts: dict[str, str]


Render = Callable[[Look, str], Parts]
"""Renders a topic of a read: the list of jobs, or the job with that id."""


@dataclass
class Topic:
    """Page with its viewers.

    :ivar version: number of changes. :ivar change: the latest change, as an event. :ivar viewers: number of streams.
    """

    parts: Parts = field(default_factory=lambda: Parts((), {}))
    version: int = 0
    change: bytes = b""
    viewers: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def publish(self, parts: Parts) -> None:
        """Send the viewers the parts that have changed."""
        before, self.parts = self.parts, parts
        fresh = {key: html for key, html in parts.parts.items() if before.parts.get(key) != html}
        data: dict[str, Any] = {"parts": fresh}
        if before.order != parts.order:
            data["order"] = parts.order
        if fresh or "order" in data:
            self.version, self.change = self.version + 1, event("change", data)
            self.wake()

    def wake(self) -> None:
        """Wake the streams, which check the version."""
        self.changed.set()
        self.changed = asyncio.Event()

    def whole(self) -> bytes:
        """Return all parts as an event."""
        return event("change", {"parts": self.parts.parts, "order": self.parts.order})


class Feed:
    """Reads Redis while there are viewers.

    :param monitor: source of the reads. :param render: renders the parts of a page. :param clock: seconds,
        for the time between two reads.
    """

    def __init__(
        self, monitor: Monitor, render: Render, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._monitor, self._render, self._clock = monitor, render, clock
        self._topics: dict[str, Topic] = {}
        self._asking: set[str] = set()
        self._latest: Look | None = None
        self._looking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def viewers(self) -> int:
        """Number of open streams."""
        return sum(topic.viewers for topic in self._topics.values())

    async def look(self, job_id: str = LIST) -> Look:
        """Return a read that is at most half a second old.

        :param job_id: job to describe in detail.
        """
        if job_id != LIST:
            if len(self._asking) >= WATCHED and job_id not in self._asking:
                raise Refused(503, f"more than {WATCHED} jobs are watched at once; close some pages")
            self._asking.add(job_id)
        async with self._looking:
            latest = self._latest
            if latest is not None:
                left_s = latest.at + LOOK_SECONDS - self._clock()
                if left_s > 0 and (job_id == LIST or job_id in latest.asked):
                    return latest
                await asyncio.sleep(max(0.0, left_s))
            asked = frozenset(self._asking | {each for each in self._topics if each != LIST})
            self._asking.clear()
            self._latest = latest = await asyncio.to_thread(self._take, asked)
            return latest

    async def parts(self, topic: str) -> Parts:
        """Return the current parts of a page."""
        look = await self.look(topic)
        return await asyncio.to_thread(self._render, look, topic)

    async def stream(self, topic_name: str, hello: dict[str, Any]) -> AsyncIterator[bytes]:
        """Yield the events of a page until the feed is closed.

        :param hello: data of the first event.
        :raises Refused: if there are too many viewers.
        """
        topic = self._join(topic_name)
        try:
            yield event("hello", hello)
            seen = -1
            while not self._closed:
                if topic.version == seen or not topic.version:
                    yielded = await self._wait(topic.changed)
                    if not yielded:
                        yield b": still here\n\n"
                    continue
                # Before the yield: while the viewer reads, further versions may come.
                follows, seen = topic.version == seen + 1, topic.version
                yield topic.change if follows else topic.whole()
        finally:
            topic.viewers -= 1
            if not topic.viewers:
                self._topics.pop(topic_name, None)

    def check_room(self, topic_name: str) -> None:
        """Refuse a further viewer if there are too many.

        :raises Refused: in that case.
        """
        if self.viewers >= VIEWERS:
            raise Refused(503, f"{VIEWERS} pages are open already; close some")
        if topic_name not in self._topics and len(self._topics) > WATCHED:
            raise Refused(503, f"more than {WATCHED} jobs are watched at once; close some pages")

    def close(self) -> None:
        """End all streams; none starts afterwards."""
        self._closed = True
        for topic in self._topics.values():
            topic.wake()
        if self._task is not None:
            self._task.cancel()

    def _join(self, topic_name: str) -> Topic:
        topic = self._topics.setdefault(topic_name, Topic())
        topic.viewers += 1
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="harness-web-feed")
        return topic

    @staticmethod
    async def _wait(changed: asyncio.Event) -> bool:
        """Return whether something changed before a comment was due."""
        try:
            await asyncio.wait_for(changed.wait(), QUIET_SECONDS)
        except TimeoutError:
            return False
        return True

    async def _run(self) -> None:
        while self._topics and not self._closed:
            look = await self.look(next((each for each in self._topics if each not in self._asked), LIST))
            names = list(self._topics)
            try:
                rendered = await asyncio.to_thread(self._render_all, look, names)
            except Exception:  # an error of this package must not end the streams of all viewers
                log.exception("the page cannot be rendered")
                rendered = {}
            for name, parts in rendered.items():
                if name in self._topics:
                    self._topics[name].publish(parts)
            await asyncio.sleep(max(0.0, look.at + LOOK_SECONDS - self._clock()))

    @property
    def _asked(self) -> frozenset[str]:
        return self._latest.asked | {LIST} if self._latest else frozenset({LIST})

    def _render_all(self, look: Look, names: Collection[str]) -> dict[str, Parts]:
        # A job that was opened during the read is included in the next read.
        return {name: self._render(look, name) for name in names if name == LIST or name in look.asked}

    def _take(self, asked: frozenset[str]) -> Look:
        """Read Redis; keep the previous result if Redis does not answer."""
        begun = self._clock()
        before = self._latest
        try:
            snapshot, details = self._monitor.look(asked)
        except (RedisError, HarnessError, OSError) as error:
            if before is None or before.error is None:
                log.warning("reading Redis failed: %s", error_text(error))
            snapshot = before.snapshot if before else None  # type: ignore[assignment]
            kept = before.details if before else {}
            return Look(self._clock(), self._clock() - begun, snapshot, kept, asked, type(error).__name__)
        # The pause until the next read starts at the end of this one, so a slow Redis is read less often.
        return Look(self._clock(), self._clock() - begun, snapshot, details, asked)


def event(name: str, data: Any) -> bytes:
    """Return a server-sent event; JSON has no line breaks."""
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
