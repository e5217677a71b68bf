"""Who may look at the page and steer jobs, and what another site can not do in a user's name."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount

from harness.errors import UsageError
from harness.queues import rq
from harness.queues.history import history
from harness.queues.rq import keys
from harness.web import create_app, loopback_only, serving, token_access
from harness.web.access import FORM_BYTES
from tests.web.jobs import JOBS
from tests.web.site import Client, Site

TOKEN = "a long token that nobody guesses"  # noqa: S105 - of these tests
PATHS = ["/", "/job?id=17", "/enqueue", "/metrics", "/events", "/static/app.js", "/nothing"]


@pytest.fixture
def job_id(queue: Queue) -> str:
    """Enqueue a job that waits."""
    return rq.enqueue(queue, JOBS[1]).id


def untouched(redis: Redis, job_id: str) -> bool:
    """Return whether nobody has steered the job."""
    return not redis.exists(keys.control(job_id), keys.stop(job_id), keys.history(job_id))


@pytest.mark.parametrize("path", ["/", "/job?id=17", "/enqueue", "/static/app.js", "/nothing", "/healthz"])
def test_every_response_has_the_strict_headers(client: Client, path: str) -> None:
    """No response may be framed, sniffed or cached, and none may load or run what is not of the page."""
    headers = client.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/", "/job?id=17", "/enqueue"])
def test_a_page_names_no_other_site(client: Client, path: str) -> None:
    """A page has no inline script and no inline style, and all that it loads is on its own server."""
    text = client.get(path).text
    found = re.findall(r'(?:src|href|action)="([^"]*)"', text)
    assert found
    assert not [each for each in found if "//" in each or each.startswith("javascript:")]
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", text)


@pytest.mark.each
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "[::2]",
        "",
        "@",
        "[x",
    ],
)
@pytest.mark.parametrize("path", PATHS)
def test_another_name_in_the_host_header_is_refused(client: Client, path: str, host: str) -> None:
    """A site that resolves to this machine gets nothing, whatever it asks for."""
    assert client.get(path, Host=host or " ").status == 400


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8077", "[::1]:8077"])
def test_the_names_of_this_machine_are_allowed(client: Client, host: str) -> None:
    """The page is served under each name of this machine, with any port."""
    assert client.get("/", Host=host).status == 200


def test_the_health_check_needs_no_name_and_no_user(redis: Redis) -> None:
    """A probe asks by the address of a container, without a token, and learns nothing else."""
    with Site(redis, access=token_access(TOKEN)) as site:
        answer = site.client().get("/healthz", Host="10.0.0.17")
    assert (answer.status, answer.text) == (200, "ok\n")


@pytest.mark.each
@pytest.mark.parametrize("path", ["/act", "/stage"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_only_a_post_acts(client: Client, redis: Redis, job_id: str, path: str, method: str) -> None:
    """A link, an image or a prefetch can not steer a job."""
    client.get("/")
    answer = client.ask(method, f"{path}?action=cancel&job={job_id}&token={client.token}")
    assert answer.status == 405
    assert untouched(redis, job_id)


FOREIGN = {
    "no cookie": {"Cookie": ""},
    "another cookie": {"Cookie": "harness-csrf=another"},
    "another origin": {"Origin": "http://evil.example"},
    "another port": {"Origin": "http://127.0.0.1:1"},
    "no origin": {"Origin": "null"},
    "another site": {"Sec-Fetch-Site": "cross-site"},
    "another subdomain": {"Sec-Fetch-Site": "same-site"},
}


@pytest.mark.each
@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("path", ["/act", "/enqueue"])
def test_a_form_of_another_site_does_nothing(
    client: Client, redis: Redis, job_id: str, path: str, headers: dict[str, str]
) -> None:
    """A POST without the cookie, from another origin or with another browser's cookie changes nothing."""
    client.get("/")
    before = redis.dbsize()
    answer = client.post(
        path, headers, action="cancel", job=job_id, **{"class": JOBS[1].path(), "queue": "test"}
    )
    assert answer.status == 403
    assert not answer.data["ok"]
    assert untouched(redis, job_id)
    assert redis.dbsize() == before


@pytest.mark.parametrize("token", ["", "0" * 64, "é"])
def test_a_form_without_its_token_does_nothing(client: Client, redis: Redis, job_id: str, token: str) -> None:
    """The cookie alone, which a browser adds to each request, is not enough."""
    client.get("/")
    assert client.post("/act", {}, action="cancel", job=job_id, token=token).status == 403
    assert untouched(redis, job_id)


def test_the_token_of_another_browser_does_nothing(site: Site, redis: Redis, job_id: str) -> None:
    """A token works only with the cookie that it was made for."""
    one, other = site.client(), site.client()
    one.get("/")
    other.get("/")
    assert one.token != other.token
    assert one.post("/act", {}, action="cancel", job=job_id, token=other.token).status == 403
    assert one.post("/act", {}, action="cancel", job=job_id).status == 200


def _basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


WRONG: dict[str, dict[str, str]] = {
    "none": {}, "wrong password": _basic("ann", "wrong"), "no password": _basic("ann", ""),
    "wrong bearer": {"Authorization": "Bearer wrong"}, "empty bearer": {"Authorization": "Bearer "},
    "not base64": {"Authorization": "Basic ###"}, "another scheme": {"Authorization": f"Digest {TOKEN}"},
    "not text": {"Authorization": "Basic /w=="}, "beginning": _basic("ann", TOKEN[:-1]),
}  # fmt: skip


@pytest.mark.each
@pytest.mark.parametrize("path", ["/", "/job?id=17", "/events", "/metrics", "/enqueue"])
@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG)
def test_nothing_is_shown_without_the_token(redis: Redis, path: str, headers: dict[str, str]) -> None:
    """With a token, each page asks for it, and a browser opens its login window."""
    with Site(redis, access=token_access(TOKEN)) as site:
        answer = site.client().ask("GET", path, headers)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")


def test_an_empty_name_is_no_user(redis: Redis) -> None:
    """A hook that returns an empty name, for example from a header that is not there, refuses."""
    with Site(redis, access=lambda request, _action: request.headers.get("x-user", "")) as site:
        assert site.client().get("/").status == 403
        assert site.client().get("/", x_user="ann").status == 200


def test_the_user_of_a_token_is_in_the_history(redis: Redis, job_id: str) -> None:
    """The name that was typed next to the token is written to the history of the job."""
    with Site(redis, access=token_access(TOKEN)) as site:
        client, ann = site.client(), _basic("ann", TOKEN)
        client.get("/", **ann)
        assert client.post("/act", ann, action="pause", job=job_id).status == 200
        assert client.post("/act", {}, action="cancel", job=job_id).status == 401
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert site.client().post("/act", bearer, action="resume", job=job_id).status == 200
    found = [(each.action, each.by) for each in history(redis, job_id)[0]]
    assert found == [("pause", "ann"), ("resume", "token")]


def test_a_short_token_is_refused() -> None:
    """A token that can be guessed is refused, with the way to make a better one."""
    with pytest.raises(UsageError, match="has 5 characters; use 16 or more"):
        token_access("short")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104 - refused
def test_an_address_that_others_reach_needs_a_token(host: str) -> None:
    """Without a token the page listens on this machine only."""
    with pytest.raises(UsageError, match="can be reached from other machines; give --token-file"):
        serving.listen(host, 0, protected=False)


def _request(client: tuple[str, int] | None, **headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw, "client": client})


def test_without_a_hook_only_this_machine_is_served() -> None:
    """A client elsewhere, or one behind a proxy on this machine, is refused."""
    assert loopback_only(_request(("127.0.0.1", 1)), "look") == "local"
    assert loopback_only(_request(("::1", 1)), "look") == "local"
    assert loopback_only(_request(None), "look") == "local"
    assert loopback_only(_request(("192.0.2.1", 1)), "look") is None
    for header in ("x-forwarded-for", "forwarded", "x-real-ip"):
        assert loopback_only(_request(("127.0.0.1", 1), **{header: "192.0.2.1"}), "look") is None


def test_the_hook_decides_about_each_action(redis: Redis, job_id: str) -> None:
    """A hook gets the name of the action, may be asynchronous, may refuse, and may answer by itself."""
    asked: list[str] = []

    async def access(request: Request, action: str) -> str | Response | None:
        """Decide about one action."""
        asked.append(action)
        if action == "requeue":
            return RedirectResponse("/login")
        return None if action == "cancel" else str(request.headers["x-user"])

    with Site(redis, access=access) as site:
        client, eve = site.client(), {"X-User": "eve"}
        client.get("/", **eve)
        answers = [
            client.post("/act", eve, action=each, job=job_id) for each in ("pause", "cancel", "requeue")
        ]
    assert [each.status for each in answers] == [200, 403, 307]
    assert asked == ["look", "pause", "cancel", "requeue"]
    assert [(each.action, each.by) for each in history(redis, job_id)[0]] == [("pause", "eve")]
    assert redis.get(keys.control(job_id)) != b"cancel"


def test_a_form_has_limits(client: Client) -> None:
    """A body that is too large, has too many fields, or is no form is refused before it is read."""
    client.get("/")
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert client.ask("POST", "/act", kind, "a=" + "b" * FORM_BYTES).status == 413
    assert client.ask("POST", "/act", kind, "&".join(f"a{number}=b" for number in range(100))).status == 400
    assert client.ask("POST", "/act", kind, b"a=\xff").status == 400
    assert client.ask("POST", "/act", {"Content-Type": "application/json"}, "{}").status == 415


def test_an_id_has_a_limit(client: Client) -> None:
    """An id that is too long, and none at all, are refused in words."""
    assert "limit is 500" in client.get("/job?id=" + "a" * 501).text
    assert client.get("/job").status == 400


def test_mounted_into_another_application_all_addresses_are_below_its_path(redis: Redis, job_id: str) -> None:
    """Pages, files, streams and actions work under a prefix, and the cookie is limited to it."""
    page: Any = create_app(redis, jobs=JOBS)
    app = Starlette(routes=[Mount("/ops/jobs", page)])
    app.state.feed = page.state.feed
    with Site(redis, app=app) as site:
        client = site.client()
        answer = client.get("/ops/jobs/")
        assert answer.status == 200
        assert "Path=/ops/jobs" in answer.headers["Set-Cookie"]
        for path in set(re.findall(r'(?:src|href|action)="(/[^"]*)"', answer.text)):
            assert path.startswith("/ops/jobs/")
            assert client.get(path).status == 200
        assert client.get("/").status == 404
        with client.events("/ops/jobs/events") as events:
            assert next(events)[0] == "hello"
        assert client.post("/ops/jobs/act", action="pause", job=job_id).data["ok"]
