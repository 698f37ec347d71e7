"""Submitting a job inside the transaction of another program: it exists exactly if that commits.

::

    with Session(engine) as session, session.begin():
        session.add(order := Order(...))
        session.flush()
        enqueue(session, "shop.tasks.send_receipt", {"order_id": order.id}, owner="shop")

For programs whose own tables are in the database of Fairq. What is checked, refused and known
already is what it would be over HTTP. docs/celery-project.md says how a program comes to have this
module, and what its database role may have to be granted.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.orm import Session, SessionTransaction, scoped_session

from scheduler.bodies import parse_body
from scheduler.database import redis_at
from scheduler.errors import Malformed, WrongField
from scheduler.events import Announcer
from scheduler.job_request import BODY_LIMIT, JobRequest
from scheduler.settings import Embedding
from scheduler.store.moves import Move
from scheduler.store.requests import check_callback, find_owners, owner_among, submission_of
from scheduler.store.submission import Submitted, submit

_PATIENCE_SECONDS = 1.0  # a commit is not worth holding up for longer to announce it

_UNTOLD = "fairq.untold"

_LOOK_IN = text("SELECT set_config('search_path', :path, true)")
_LOOKED_IN = text("SELECT current_setting('search_path')")


@dataclass(frozen=True, slots=True)
class Enqueued:
    """The id of a job; *is_duplicate*: it was there before, with the same content."""

    job_id: str
    is_duplicate: bool


def enqueue(
    session: Session | scoped_session[Session],
    type: str,  # noqa: A002 - the contract's name
    payload: Mapping[str, Any] | None = None,
    *,
    owner: str,
    schema: str | None = None,
    **fields: Any,
) -> Enqueued:
    """Submit a job in the transaction of *session*, which stays the caller's to commit.

    *fields* are those of ``POST /jobs``. *schema* is where Fairq's tables are, if it is not where
    the session looks for tables. Raises the SubmissionRefused that the same submission would meet
    over HTTP; the session and what it has done are as they were before. Scheduler and pages are
    told once the transaction has committed.
    """
    settings = Embedding.from_env()
    said = {"type": type, "payload": {} if payload is None else payload, "owner": owner}
    request = _read(said | fields)
    check_callback(request.callback_url, allow_private=settings.allow_private_http)
    if isinstance(session, scoped_session):
        session = session()
    submitted = _submit(session, owner, request, schema)
    if submitted.moves and settings.redis_url:
        _untold_of(session, settings.redis_url).add(session, submitted.moves)
    names = [move.job_id for move in submitted.moves] or [request.job_id or ""]
    return Enqueued(names[0], is_duplicate=not submitted.created)


def _read(fields: Mapping[str, Any]) -> JobRequest:
    """Read *fields* by way of the body that they would be over HTTP."""
    members = [
        _to_json(name, name) + b":" + _to_json(name, value) for name, value in fields.items()
    ]
    body = b"{" + b",".join(members) + b"}"
    if len(body) > BODY_LIMIT:
        message = f"makes the submission larger than {BODY_LIMIT} bytes"
        raise _malformed("payload", message, code="too_large")
    return parse_body(JobRequest, body)


def _to_json(name: str, value: Any) -> bytes:
    said = value.isoformat() if isinstance(value, datetime) else value
    try:
        return json.dumps(said, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as problem:
        raise _malformed(name, f"cannot be written as JSON: {problem}") from problem


def _malformed(path: str, message: str, code: str | None = None) -> Malformed:
    return Malformed(f"{path} {message}.", [WrongField(path, message)], code=code)


def _submit(session: Session, owner: str, request: JobRequest, schema: str | None) -> Submitted:
    """Take the job in on the connection of *session*, under a savepoint of its own.

    A session beside the caller's keeps Fairq's objects out of the caller's, and the caller's
    unflushed ones out of this.
    """
    with (
        Session(session.connection(), join_transaction_mode="create_savepoint") as beside,
        beside.begin(),
        _looking_in(beside, schema),
    ):
        owner_id = owner_among(find_owners(beside, [owner]), owner)
        return submit(beside, owner_id, [submission_of(request)], batch=False)


@contextmanager
def _looking_in(session: Session, schema: str | None) -> Iterator[None]:
    """Find tables in *schema* for a while; a savepoint that is rolled back ends it as well."""
    if schema is None:
        yield
        return
    before = session.execute(_LOOKED_IN).scalar_one()
    session.execute(_LOOK_IN, {"path": '"' + schema.replace('"', '""') + '"'})
    yield
    session.execute(_LOOK_IN, {"path": before})


@cache
def _announcer(redis_url: str) -> Announcer:
    patience = {"socket_timeout": _PATIENCE_SECONDS, "socket_connect_timeout": _PATIENCE_SECONDS}
    return Announcer(redis_at(redis_url, **patience))


class _Untold:
    """The moves of one session that others are told of once its transaction has committed."""

    def __init__(self, announcer: Announcer) -> None:
        self._announcer = announcer
        self._made: list[tuple[SessionTransaction | None, list[Move]]] = []

    def listen(self, session: Session) -> None:
        """Follow what becomes of the transactions of *session*."""
        event.listen(session, "after_commit", self._tell)
        event.listen(session, "after_soft_rollback", self._forget)
        event.listen(session, "after_transaction_end", self._end)

    def add(self, session: Session, moves: list[Move]) -> None:
        """Keep what was done under the innermost savepoint there is."""
        self._made.append((session.get_nested_transaction() or session.get_transaction(), moves))

    def _tell(self, session: Session) -> None:
        if not self._made or session.in_nested_transaction():  # a savepoint is released likewise
            return
        self._announcer.tell([move for _, moves in self._made for move in moves])
        self._announcer.wake()

    def _forget(self, _: Session, undone: SessionTransaction) -> None:
        self._made = [made for made in self._made if undone not in _with_outer(made[0])]

    def _end(self, _: Session, ended: SessionTransaction) -> None:
        if ended.parent is None:  # closing a session rolls back without a word
            self._made.clear()


def _untold_of(session: Session, redis_url: str) -> _Untold:
    if _UNTOLD not in session.info:
        session.info[_UNTOLD] = untold = _Untold(_announcer(redis_url))
        untold.listen(session)
    found: _Untold = session.info[_UNTOLD]
    return found


def _with_outer(transaction: SessionTransaction | None) -> Iterator[SessionTransaction]:
    while transaction is not None:
        yield transaction
        transaction = transaction.parent
