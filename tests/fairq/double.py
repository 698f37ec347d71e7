"""A server that answers as it is told, and takes nothing that the HTTP contract does not know.

::

    with Double() as double:
        double.on("GET", "/jobs/a", Reply(503, headers={"Retry-After": "0"}), Reply(200, job("a")))
        ...
        assert double.asked("GET", "/jobs/a") == 2

Answers are given in their order, and the last one again and again. A request that is not of the
contract (an unknown route, a field or a type that it does not name) is refused and remembered;
the end of the block fails with everything that was.
"""

import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from scheduler.job_request import JobRequest
from webapp.schemas.bulk import BulkRequest
from webapp.schemas.dead_letters import DeadLettersRequest, DeadLettersRetry
from webapp.schemas.jobs import BatchRequest
from webapp.schemas.pull import CompleteRequest, HeartbeatRequest
from webapp.schemas.tokens import TokenRequest

NOON = "2026-03-01T12:00:00Z"


# What may be asked, from the page that fixes it


class Shape(BaseModel):
    """A body as the contract names its fields."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Next(Shape):
    worker: str
    types: list[str] | None = None
    lease_seconds: float = 30
    wait_seconds: float = 0


class Timing(Shape):
    cron: str | None = None
    every_seconds: int | None = None
    timezone: str | None = None
    overlap: Literal["skip", "queue", "replace"] | None = None
    catch_up: Literal["none", "latest", "all"] | None = None
    paused: bool | None = None


class NewSchedule(Timing):
    name: str
    template: JobRequest


class SchedulePatch(Timing):
    template: JobRequest | None = None


NOTHING: frozenset[str] = frozenset()
PAGE = frozenset({"limit", "cursor"})
OWNER = frozenset({"owner"})
LETTERS = PAGE | {"group", "type", "fingerprint", "owner", "q", "failed_after", "failed_before"}
JOBS = PAGE | {
    *("status", "type", "priority", "owner", "tag", "q"),
    *("created_after", "created_before", "sort"),
}

ROUTES: Mapping[str, tuple[frozenset[str], type[BaseModel] | None]] = {
    "POST /jobs": (NOTHING, JobRequest),
    "POST /jobs/batch": (NOTHING, BatchRequest),
    "POST /jobs/bulk": (NOTHING, BulkRequest),
    "GET /jobs": (JOBS, None),
    "GET /jobs/stream": (OWNER, None),
    "POST /jobs/next": (NOTHING, Next),
    "GET /jobs/{}": (OWNER, None),
    "PATCH /jobs/{}/cancel": (OWNER, None),
    "POST /jobs/{}/retry": (OWNER, None),
    "GET /jobs/{}/attempts": (OWNER | PAGE, None),
    "GET /jobs/{}/wait": (OWNER | {"timeout_seconds"}, None),
    "GET /jobs/{}/logs": (OWNER | PAGE | {"follow"}, None),
    "POST /jobs/{}/heartbeat": (NOTHING, HeartbeatRequest),
    "POST /jobs/{}/complete": (NOTHING, CompleteRequest),
    "GET /dead-letters": (LETTERS, None),
    "POST /dead-letters/retry": (NOTHING, DeadLettersRetry),
    "POST /dead-letters/discard": (NOTHING, DeadLettersRequest),
    "GET /schedules": (PAGE, None),
    "POST /schedules": (NOTHING, NewSchedule),
    "GET /schedules/{}": (NOTHING, None),
    "PATCH /schedules/{}": (NOTHING, SchedulePatch),
    "DELETE /schedules/{}": (NOTHING, None),
    "POST /schedules/{}/run": (NOTHING, None),
    "POST /tokens": (NOTHING, TokenRequest),
    "GET /me": (NOTHING, None),
    "GET /workers": (NOTHING, None),
    "GET /stats": (NOTHING, None),
    "GET /types": (PAGE, None),
}


def problem_with(asked: "Asked") -> str | None:
    """Say what of a request the contract does not know."""
    route = next((route for route in ROUTES if _fits(route, asked)), None)
    if route is None:
        return f"{asked.method} {asked.path} is no call of the contract"
    known, shape = ROUTES[route]
    if unknown := set(asked.query) - known:
        return f"{route} has no parameters {unknown}"
    if shape is None:
        return None if asked.body is None else f"{route} takes no body"
    try:
        shape.model_validate_json(json.dumps(asked.body))
    except ValidationError as error:
        return f"{route}: {error}"
    return None


def _fits(route: str, asked: "Asked") -> bool:
    pattern = re.escape(route).replace(r"\{\}", "[^/]+").replace(r"\ ", " ")
    return re.fullmatch(pattern, f"{asked.method} {asked.path}") is not None


# What it answers


@dataclass(frozen=True)
class Reply:
    """An answer as a whole; a body of bytes is sent as it is."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Events:
    """Server-sent events; *breaks* closes the connection in the middle, *stays* leaves it open."""

    events: tuple[str, ...]
    breaks: bool = False
    stays: bool = False


@dataclass(frozen=True)
class Silence:
    """The connection is closed without an answer."""


Answer = Reply | Events | Silence
Told = Answer | Callable[["Asked"], Answer]


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: Any

    @property
    def segments(self) -> list[str]:
        return [unquote(part) for part in self.path.split("/")[1:]]


def _written(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def event(data: Mapping[str, Any], *, number: int | None = None, kind: str | None = None) -> str:
    """Write a server-sent event."""
    lines = [f"event: {kind}"] if kind else []
    lines += [f"id: {number}"] if number is not None else []
    return "\n".join([*lines, f"data: {json.dumps(data)}", "", ""])


def job(job_id: str = "a", status: str = "ready", **more: Any) -> dict[str, Any]:
    """Return a job as answered."""
    return {"job_id": job_id, "type": "simulate", "status": status, "owner": "ann"} | more


def leased(job_id: str = "a", **more: Any) -> dict[str, Any]:
    """Return a job as ``next`` answers it."""
    return job(job_id, "running", lease="lease-1", lease_expires_at=NOON, attempt=1, **more)


def refusal(code: str, status: int, **more: Any) -> Reply:
    """Return a problem."""
    details = {"type": f"urn:fairq:problem:{code}", "title": "No", "status": status}
    return Reply(status, {**details, "detail": f"refused: {code}", "code": code, **more})


class Double:
    """The server; see the module's text."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str], list[Told]] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self.requests: list[Asked] = []
        self.problems: list[str] = []
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        assert not self.problems, "\n".join(self.problems)

    def on(self, method: str, path: str, *answers: Told) -> None:
        """Answer that request so, each time with the next of *answers*."""
        self._answers[method, path] = list(answers)

    def asked(self, method: str, path: str) -> list[Asked]:
        """Return the requests of that kind so far."""
        return [one for one in self.requests if (one.method, one.path) == (method, path)]

    def bodies(self, method: str, path: str) -> list[Any]:
        return [one.body for one in self.asked(method, path)]

    def reply_to(self, asked: Asked) -> Answer:
        with self._lock:
            self.requests.append(asked)
            if problem := problem_with(asked):
                self.problems.append(problem)
                return refusal("validation_failed", 422, detail=problem)
            answers = self._answers.get((asked.method, asked.path), [refusal("not_found", 404)])
            told = answers.pop(0) if len(answers) > 1 else answers[0]
        return told(asked) if callable(told) else told

    def wait_for_end(self) -> None:
        """Wait until the test is over."""
        self._over.wait(30)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, double: Double) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.double = double

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        parts = urlsplit(self.path)
        asked = Asked(
            self.command,
            parts.path,
            parse_qs(parts.query, keep_blank_values=True),
            {name.lower(): value for name, value in self.headers.items()},
            json.loads(raw) if raw else None,
        )
        match self.server.double.reply_to(asked):
            case Reply() as reply:
                self._reply(reply)
            case Events() as events:
                self._stream(events)
            case Silence():
                self.close_connection = True

    do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815 - the names http.server looks for

    def _reply(self, reply: Reply) -> None:
        raw = b"" if reply.status == 204 else _written(reply.body)
        given = {"Content-Type": "application/json", "Content-Length": str(len(raw))}
        self._head(reply.status, given | reply.headers)
        self.wfile.write(raw)

    def _stream(self, told: Events) -> None:
        self._head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
        self._chunks(told.events)
        if told.stays:
            self.server.double.wait_for_end()
        if not told.breaks:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = told.breaks

    def _chunks(self, texts: Iterable[str]) -> None:
        for text in texts:
            raw = text.encode()
            self.wfile.write(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")
            self.wfile.flush()

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""
