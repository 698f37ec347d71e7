"""Taking jobs in for whoever asks: the JSON routes and the form share this."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flask import g, request
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from scheduler.errors import SubmissionRefused
from scheduler.job_request import JobRequest
from scheduler.store import requests as asked
from scheduler.store.moves import Move
from scheduler.store.requests import find_owners, owner_among, submission_of
from scheduler.store.submission import Submission, Submitted, submit
from webapp import audit, queries
from webapp.access import Account
from webapp.errors import FieldError, Problem
from webapp.extensions import db
from webapp.services import services

TRIES = 5
"""How often a submission is tried when it meets others on the same rows."""

_MEETINGS = {"40001", "40P01"}  # serialisation failure, deadlock

_KEY_LIMIT = 200


@dataclass(frozen=True, slots=True)
class Intake:
    """What became of a submission, in its order."""

    jobs: Sequence[queries.JobView]
    created: int
    duplicates: frozenset[int]
    moves: Sequence[Move]


def take_in(
    account: Account, requests: Sequence[JobRequest], *, batch: bool, key: str | None
) -> Intake:
    """Submit *requests*, all or none, without committing; ``finish`` does.

    What is submitted again under the same *key* is there already. Raises a SubmissionRefused, or a
    problem for an owner the caller may not submit for.
    """
    session = db.session()
    for attempt in range(1, TRIES + 1):
        try:
            return _take_in(session, account, requests, key, batch=batch)
        except DBAPIError as error:
            session.rollback()
            if getattr(error.orig, "sqlstate", None) not in _MEETINGS or attempt == TRIES:
                raise
    raise AssertionError("the last try returns or raises")


def owner_for(session: Session, account: Account, name: str | None) -> int:
    """Return who is to own what *account* makes: the caller, or whom an operator names."""
    if name is None or name.lower() == account.username.lower():
        return account.id
    if not account.sees_everybody:
        raise Problem("forbidden", "Only operators submit for others.")
    return owner_among(find_owners(session, {name}), name)


def finish(moves: Sequence[Move]) -> None:
    """Commit, then tell whoever is to know."""
    db.session.commit()
    announcer = services().announcer
    announcer.tell(moves)
    announcer.wake()


def _take_in(
    session: Session,
    account: Account,
    requests: Sequence[JobRequest],
    key: str | None,
    *,
    batch: bool,
) -> Intake:
    _check_callbacks(requests, batch=batch)
    owners = _owners(session, account, requests, batch=batch)
    ids = [0] * len(requests)
    duplicates: set[int] = set()
    moves: list[Move] = []
    for owner_id, places in _by_owner(owners):
        part = [_submission(requests[place], key, place if batch else None) for place in places]
        submitted = _submit(session, owner_id, part, places, batch=batch)
        for place, number in zip(places, submitted.ids, strict=True):
            ids[place] = number
        duplicates |= submitted.duplicates
        moves += submitted.moves
        audit.note_submission(owner_id, [move.job_id for move in submitted.moves])
    views = queries.jobs_by_ids(
        session,
        set(ids),
        are_new=not duplicates,
        have_links=bool(duplicates) or any(one.depends_on for one in requests),
    )
    created = sum(number not in duplicates for number in ids)
    return Intake([views[number] for number in ids], created, frozenset(duplicates), moves)


def _submit(
    session: Session,
    owner_id: int,
    part: Sequence[Submission],
    places: Sequence[int],
    *,
    batch: bool,
) -> Submitted:
    """Submit one owner's part of a batch; a refusal names the place in the whole of it."""
    try:
        return submit(session, owner_id, part, batch=batch)
    except SubmissionRefused as refusal:
        start, _, rest = refusal.path.partition(".")
        number, _, field = rest.partition(".")
        if batch and start == "jobs" and number.isdecimal():
            refusal.path = f"jobs.{places[int(number)]}.{field}"
        raise


def _by_owner(owners: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    for owner_id in sorted(set(owners)):
        yield owner_id, [place for place, owner in enumerate(owners) if owner == owner_id]


def check_callback(url: str | None, path: str) -> None:
    """Refuse what the courier would."""
    asked.check_callback(url, path=path, allow_private=services().settings.allow_private_http)


def _check_callbacks(requests: Sequence[JobRequest], *, batch: bool) -> None:
    for place, one in enumerate(requests):
        check_callback(one.callback_url, f"jobs.{place}.callback_url" if batch else "callback_url")


def _owners(
    session: Session, account: Account, requests: Sequence[JobRequest], *, batch: bool
) -> list[int]:
    """Return the owner of each job: the caller, or whom an operator names."""
    named = {one.owner.lower() for one in requests if one.owner}
    known = {account.username.lower(): account.id}
    if named - set(known):
        if not account.sees_everybody:
            raise Problem("forbidden", "Only operators submit for others.")
        known |= find_owners(session, named)
    return [
        account.id
        if one.owner is None
        else owner_among(known, one.owner, path=f"jobs.{place}.owner" if batch else "owner")
        for place, one in enumerate(requests)
    ]


def _submission(one: JobRequest, key: str | None, place: int | None) -> Submission:
    if key is not None and place is not None:
        key = f"{key}/{place}"
    return submission_of(one, idempotency_key=key, request_id=g.request_id)


def idempotency_key() -> str | None:
    """Return the key of this request, if it has one."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not (0 < len(key) <= _KEY_LIMIT and key.isprintable()):
        message = f"must be 1 to {_KEY_LIMIT} printable characters"
        path = "Idempotency-Key"
        raise Problem("validation_failed", f"{path} {message}.", (FieldError(path, message),))
    return key
