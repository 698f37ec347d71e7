"""Taking jobs in for whoever asks: the JSON routes and the form share this."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from flask import g, request
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from scheduler import outbound
from scheduler.errors import SubmissionRefused
from scheduler.models import User
from scheduler.states import Role, class_of
from scheduler.store.moves import Move
from scheduler.store.submission import Submission, Submitted, submit
from webapp import audit, queries
from webapp.access import Account
from webapp.errors import FieldError, Problem
from webapp.extensions import db
from webapp.schemas import JobRequest
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


def take_in(account: Account, requests: Sequence[JobRequest], *, batch: bool) -> Intake:
    """Submit *requests*, all or none, without committing; ``finish`` does.

    Raises a SubmissionRefused, or a problem for an owner the caller may not submit for.
    """
    session = db.session()
    key = idempotency_key()
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
    return _owner(_find_owners(session, {name.lower()}), name, None)


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
    """Refuse what the courier would: addresses that are private whoever resolves them."""
    if url is None or services().settings.allow_private_http:
        return
    if outbound.is_private(url):
        message = "leads to a private address, where callbacks do not go"
        raise Problem("validation_failed", f"{path} {message}.", (FieldError(path, message),))


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
        known |= _find_owners(session, named)
    return [
        account.id if one.owner is None else _owner(known, one.owner, place if batch else None)
        for place, one in enumerate(requests)
    ]


def _find_owners(session: Session, names: set[str]) -> dict[str, int]:
    """Return who of *names* may own jobs."""
    name = func.lower(User.username)
    rows = session.execute(
        select(name, User.id).where(name.in_(names), User.active, User.role != Role.VIEWER)
    )
    return dict(rows.all())


def _owner(known: Mapping[str, int], name: str, place: int | None) -> int:
    if name.lower() not in known:
        path = "owner" if place is None else f"jobs.{place}.owner"
        message = f"there is no active user {name!r} who may own jobs"
        raise Problem("unknown_owner", f"{path}: {message}.", (FieldError(path, message),))
    return known[name.lower()]


def _submission(one: JobRequest, key: str | None, place: int | None) -> Submission:
    needs, retry = one.resource_requirements, one.retry_config
    if key is not None and place is not None:
        key = f"{key}/{place}"
    return Submission(
        type=one.type,
        job_id=one.job_id,
        payload=one.payload,
        description=one.description,
        tags=tuple(one.tags),
        priority_level=one.priority,
        job_class=class_of(one.priority),
        depends_on=tuple((parent.job_id, parent.when) for parent in one.depends_on),
        cpu_units=one.cpu_units(),
        memory_mb=None if needs is None else needs.memory_mb,
        retry_config=None if retry is None else retry.model_dump(exclude_unset=True),
        timeout_seconds=one.timeout_seconds,
        estimated_seconds=one.estimated_seconds,
        run_at=one.run_at,
        delay_seconds=one.delay_seconds,
        start_by=one.start_by,
        executor=one.executor,
        callback_url=one.callback_url,
        idempotency_key=key if one.job_id is None else None,
        request_id=g.request_id,
    )


def idempotency_key() -> str | None:
    """Return the key of this request, if it has one."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not (0 < len(key) <= _KEY_LIMIT and key.isprintable()):
        message = f"must be 1 to {_KEY_LIMIT} printable characters"
        path = "Idempotency-Key"
        raise Problem("validation_failed", f"{path} {message}.", (FieldError(path, message),))
    return key
