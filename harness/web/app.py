"""The application and its addresses.

============  ====================================================================
``/``         the list of jobs, with queues, workers and the latest events
``/job``      one job: ``?id=``
``/enqueue``  the form that enqueues a job: ``?job=``; with POST it does so
``/act``      an action on a job, with POST
``/stage``    an action of the demo, with POST
``/events``   stream of changes of a page: ``?job=`` for that of a job
``/metrics``  metrics for Prometheus
``/healthz``  says that the process lives; needs neither Redis nor a user
============  ====================================================================
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from harness.boundary.texts import printable
from harness.errors import HarnessError, UsageError
from harness.monitor.snapshot import Monitor
from harness.queues.ticket_jobs import KINDS
from harness.queues.watching import Watcher
from harness.web import access as accesses
from harness.web import forms
from harness.web.access import (
    HEALTH,
    LOOK,
    LOOPBACK_HOSTS,
    Access,
    Guard,
    Refused,
    Tokens,
    form_of,
    loopback_only,
)
from harness.web.actions import ACTIONS, act
from harness.web.enqueuing import enqueue
from harness.web.feed import LIST, Feed
from harness.web.metrics import CONTENT_TYPE, Metrics
from harness.web.pages import Pages, environment

if TYPE_CHECKING:
    from redis import Redis

    from harness.job import Job
    from harness.monitor.tables import StatusTables
    from harness.web.stage import Stage

STATIC = Path(__file__).parent / "static"
ID_CHARACTERS = 500
"""Maximum length of a job id in an address."""

log = logging.getLogger("harness.web")
Endpoint = Callable[["Web", Request, str], Awaitable[Response]]


class Web:
    """State of one application, and its endpoints.

    :ivar feed: reads and streams. :ivar jobs: classes that may be enqueued, by their dotted names.
    """

    def __init__(
        self,
        connection: Redis,
        *,
        access: Access,
        jobs: Sequence[type[Job]],
        queues: Collection[str],
        tables: StatusTables | None,
        where: str,
        stage: Stage | None,
        enqueue_on: Any = None,
    ) -> None:
        self._connection, self._access, self._where, self._stage = connection, access, where, stage
        self._app = enqueue_on
        self.jobs = {each.path(): each for each in jobs}
        self._pages = Pages(where, stage)
        self.feed = Feed(Monitor(Watcher(connection, queues), tables), self._pages.render)
        self._tokens, self._metrics = Tokens(), Metrics()

    def route(self, path: str, endpoint: Endpoint, *methods: str, action: str | None = LOOK) -> Route:
        """Return the route of an endpoint, which receives the user.

        :param action: name for the access hook; None if the endpoint asks the hook itself.
        """

        async def answer(request: Request) -> Response:
            try:
                by: str | Response = ""
                if action is not None:
                    by = await accesses.user_of(self._access, request, action)
                return by if isinstance(by, Response) else await endpoint(self, request, by)
            except Refused as refused:
                return self._answer(request, refused.text, refused.status)
            except UsageError as error:
                return self._answer(request, str(error), 409)
            except (RedisError, HarnessError) as error:
                log.warning("%s: %s", path, printable(str(error)))
                text = f"no answer from Redis ({type(error).__name__}); the result of the action is unknown; try again"
                return self._answer(request, text if isinstance(error, RedisError) else str(error), 503)

        return Route(path, answer, methods=[*methods] or ["GET"])

    @staticmethod
    def _answer(request: Request, text: str, status: int = 200) -> Response:
        if request.method == "POST":
            return JSONResponse({"ok": status == 200, "text": printable(text)}, status)
        return PlainTextResponse(printable(text) + "\n", status)

    def _page(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        base, cookie = request.scope.get("root_path", "").rstrip("/"), self._tokens.cookie(request)
        html = environment.get_template(template).render(
            base=base,
            where=self._where,
            token=self._tokens.token(cookie),
            may_enqueue=bool(self.jobs),
            **values,
        )
        response = HTMLResponse(html, status)
        self._tokens.keep(response, request, cookie)
        return response

    async def index(self, request: Request, by: str) -> Response:
        """Return the page with the list of jobs."""
        del by
        parts = await self.feed.parts(LIST)
        return self._page(
            request,
            "jobs.html",
            topic=LIST,
            parts=parts.parts,
            order=parts.order,
            demo=self._stage is not None,
        )

    async def job(self, request: Request, by: str) -> Response:
        """Return the page of one job."""
        del by
        job_id = _id(request, "id")
        if not job_id:
            raise Refused(400, "the job id is missing; use /job?id=ID")
        parts = await self.feed.parts(job_id)
        return self._page(request, "job.html", topic=job_id, parts=parts.parts)

    async def events(self, request: Request, by: str) -> Response:
        """Return the stream of changes of a page."""
        del by
        topic = _id(request, "job")
        self.feed.check_room(topic)
        token = self._tokens.token(self._tokens.cookie(request))
        headers = {"X-Accel-Buffering": "no"}  # otherwise a proxy may buffer events and send them late
        return StreamingResponse(
            self.feed.stream(topic, {"token": token}), media_type="text/event-stream", headers=headers
        )

    async def act(self, request: Request, by: str) -> Response:
        """Carry out an action on a job."""
        del by
        form = await form_of(request)
        name = form.get("action", "")
        if name not in ACTIONS:
            raise UsageError(f"there is no action {name!r}; use one of {', '.join(ACTIONS)}")

        def carry_out(user: str) -> str:
            return act(self._connection, name, form.get("job", ""), user, form.get("value", "").strip())

        return await self._acting(request, name, form, carry_out)

    async def stage(self, request: Request, by: str) -> Response:
        """Carry out an action of the demo."""
        del by
        form, stage = await form_of(request), self._stage
        if stage is None:
            raise Refused(404, "this page is not the demo")

        def carry_out(user: str) -> str:
            return stage.act(form.get("action", ""), form.get("lane", ""), user)

        return await self._acting(request, "stage", form, carry_out)

    async def enqueue_form(self, request: Request, by: str) -> Response:
        """Return the form that enqueues a job."""
        del by
        name = request.query_params.get("job", "") or next(iter(self.jobs), "")
        if name not in self.jobs:
            raise Refused(404, "this job class cannot be enqueued here; allow it with --job")
        fields = forms.fields_of(self.jobs[name])
        look = await self.feed.look()
        found = set(look.snapshot.queues) - set(KINDS.values()) if look.snapshot else set()
        queues = sorted(found, key=lambda queue: (queue != "default", queue))
        if self._app is not None:  # the app knows its default queue
            queues = ["", *sorted({each.queue for each in look.snapshot.jobs} if look.snapshot else ())]
        return self._page(
            request, "enqueue.html", topic=LIST, jobs=list(self.jobs), name=name, fields=fields,
            queues=queues or ["default"], about=(self.jobs[name].__doc__ or "").partition("\n")[0],
        )  # fmt: skip

    async def enqueue(self, request: Request, by: str) -> Response:
        """Enqueue a job."""
        del by
        form = await form_of(request)
        name = form.get("class", "")
        if name not in self.jobs:
            raise UsageError(f"{name!r} cannot be enqueued here; allow it with --job")
        try:
            return await self._acting(
                request,
                "enqueue",
                form,
                lambda user: enqueue(self._connection, self.jobs[name], form, user, self._app),
            )
        except forms.BadForm as error:
            wrong = {each.name: each.error for each in error.fields if each.error}
            return JSONResponse({"ok": False, "text": printable(str(error)), "fields": wrong}, 422)

    async def _acting(
        self, request: Request, name: str, form: dict[str, str], carry_out: Callable[[str], str]
    ) -> Response:
        """Check the user, run the action in a thread, and count it."""
        by = await accesses.user_of(self._access, request, name)
        if isinstance(by, Response):
            return by
        self._tokens.check(request, form)
        try:
            text = await asyncio.to_thread(carry_out, by)
        except (UsageError, HarnessError):
            self._metrics.count(name, refused=True)
            raise
        self._metrics.count(name, refused=False)
        return self._answer(request, text)

    async def metrics(self, request: Request, by: str) -> Response:
        """Return the metrics."""
        del request, by
        text = self._metrics.text(await self.feed.look(), self.feed.viewers)
        return Response(text, headers={"Content-Type": CONTENT_TYPE})

    async def health(self, request: Request, by: str) -> Response:
        """Report that the process runs."""
        del request, by
        return PlainTextResponse("ok\n")


def create_app(
    connection: Redis,
    *,
    access: Access = loopback_only,
    hosts: Collection[str] | None = LOOPBACK_HOSTS,
    jobs: Sequence[type[Job]] = (),
    queues: Collection[str] = (),
    tables: StatusTables | None = None,
    where: str = "",
    stage: Stage | None = None,
    enqueue_on: Any = None,
) -> Starlette:
    """Return the page as an ASGI application, to be run or mounted into another one.

    :param connection: the Redis of the queues, without ``decode_responses``.
    :param access: hook that decides who may view and steer, see :data:`Access`; by default only requests from
        this machine. :param hosts: allowed names in the Host header; None if the application around it checks
        them.
    :param jobs: classes that may be enqueued from the page. :param queues: names of the queues to show; all if empty.
    :param tables: source for progress that is kept in a database. :param where: the watched server, in words.
    :param stage: the demo. :param enqueue_on: Celery app or Dramatiq broker of the form; RQ if None.
    :raises UsageError: if the connection cannot read RQ's jobs.
    """
    web = Web(
        connection, access=access, jobs=jobs, queues=queues, tables=tables, where=where, stage=stage,
        enqueue_on=enqueue_on,
    )  # fmt: skip
    routes = [
        web.route("/", Web.index),
        web.route("/job", Web.job),
        web.route("/events", Web.events),
        web.route("/metrics", Web.metrics),
        web.route("/enqueue", Web.enqueue_form),
        web.route("/enqueue", Web.enqueue, "POST", action=None),
        web.route("/act", Web.act, "POST", action=None),
        web.route("/stage", Web.stage, "POST", action=None),
        web.route(HEALTH, Web.health, action=None),
        Mount("/static", StaticFiles(directory=STATIC), name="static"),
    ]
    app = Starlette(routes=routes, middleware=[Middleware(Guard, hosts=hosts)])
    app.state.feed = web.feed
    return app


def _id(request: Request, name: str) -> str:
    job_id = request.query_params.get(name, LIST)
    if len(job_id) > ID_CHARACTERS:
        raise Refused(400, f"the id has {len(job_id):,} characters; the limit is {ID_CHARACTERS}")
    return job_id
