"""Clearing dead letters by retrying or discarding them: the JSON routes and the forms share this.

A request deals with so many of them at most, in transactions of a few: what is done stays done
when the rest fails, and others get their turn in between.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from scheduler.database import is_outage
from scheduler.errors import JobNotFound
from scheduler.job_request import is_errand
from scheduler.payloads import Misfit, merge
from scheduler.store.dead_letters import discard as discard_jobs
from scheduler.store.dead_letters import hold
from scheduler.store.moves import Move
from scheduler.store.revival import run_again
from webapp import access, audit, dead_letters, queries
from webapp.access import Account
from webapp.errors import RETRY_SOON, FieldError, Problem
from webapp.extensions import db
from webapp.schemas.dead_letters import DeadLettersFilter, DeadLettersQuery, DeadLettersRequest
from webapp.submitting import finish

LIMIT = 10_000
"""Dead letters that one request deals with."""

BATCH = 500
"""Of which so many in one transaction."""

PAYLOAD_CHANGED = {"payload": "changed"}
"""What the audit log is told of a payload: that it changed, since it may hold secrets."""

Act = Callable[[Session, Sequence[int]], tuple[Sequence[int], Sequence[Move]]]
"""Deals with jobs, and returns with which; whoever calls it writes that down and commits."""


@dataclass(frozen=True, slots=True)
class Cleared:
    """What became of a request; *remaining* ones match and were left for the next."""

    done: int
    skipped: int
    remaining: int
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Which dead letters a request is about; *unknown* ones were named and are not to be seen."""

    ids: Sequence[int]
    unknown: int = 0
    remaining: int = 0
    next_cursor: str | None = None


def retry(
    account: Account, asked: DeadLettersRequest, patch: dict[str, Any] | None = None
) -> Cleared:
    """Run dead letters again, batch by batch, each committed and told.

    Raises a 422 problem, and runs none, if a payload under *patch* does not fit its type.
    """
    chosen = _choose(account, asked)
    if patch is None:
        return _clear(chosen, _run_again, "jobs.retry")
    session = db.session()
    patching = _Patching(session, patch)
    for batch in _batches(chosen.ids):
        patching.check(session, batch)
    return _clear(chosen, patching.run_again, "jobs.retry", PAYLOAD_CHANGED)


def discard(account: Account, asked: DeadLettersRequest) -> Cleared:
    """Take dead letters out of them, batch by batch, each committed."""
    return _clear(_choose(account, asked), _discard, "jobs.discard")


def check_changeable(job_id: str, job_type: str) -> None:
    """Raise a 422 problem for a job whose payload says what is done with its owner's rights."""
    if is_errand(job_type):
        only = f"must stay as it is: only the server says what a job of the type {job_type} does"
        raise _does_not_fit(job_id, Misfit("payload", only))


def filter_of(asked: DeadLettersFilter | DeadLettersQuery) -> dead_letters.Filter:
    """Return what is asked for as the reads understand it; the owner is a matter of access."""
    return dead_letters.Filter(
        fingerprint=asked.fingerprint,
        type=asked.type,
        text=asked.q,
        failed_after=asked.failed_after,
        failed_before=asked.failed_before,
    )


def _choose(account: Account, asked: DeadLettersRequest) -> _Chosen:
    if asked.filter is not None:
        return _matching(account, asked.filter, asked.cursor)
    names = set(asked.job_ids or ())
    ids = access.find_ids(account, asked.job_ids or (), asked.owner)
    if not ids:
        raise JobNotFound(min(names))
    return _Chosen(ids, unknown=len(names) - len(ids))


def _matching(account: Account, asked: DeadLettersFilter, cursor: str | None) -> _Chosen:
    session, wanted = db.session(), filter_of(asked)
    visible = access.visible_jobs(account, asked.owner)
    start = None if cursor is None else dead_letters.Place.read(cursor)
    ids, beyond = dead_letters.find_ids(session, visible, wanted, limit=LIMIT, start=start)
    # The latest are found first; whoever failed first is dealt with first.
    ids.reverse()
    if beyond is None:
        return _Chosen(ids)
    rest = dead_letters.count(session, visible, wanted, limit=LIMIT, start=beyond)
    return _Chosen(ids, remaining=rest, next_cursor=beyond.written())


def _clear(
    chosen: _Chosen, act: Act, action: str, detail: Mapping[str, Any] | None = None
) -> Cleared:
    done = 0
    for batch in _batches(chosen.ids):
        try:
            cleared, moves = act(db.session(), batch)
            audit.note_about_jobs(action, cleared, detail)
            finish(moves)
        except DBAPIError as error:
            if done and is_outage(error):
                raise _interrupted(done) from error
            raise
        done += len(cleared)
    skipped = chosen.unknown + len(chosen.ids) - done
    return Cleared(done, skipped, chosen.remaining, chosen.next_cursor)


def _batches(ids: Sequence[int]) -> Iterable[Sequence[int]]:
    return (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))


def _run_again(session: Session, ids: Sequence[int]) -> tuple[Sequence[int], Sequence[Move]]:
    moves = run_again(session, hold(session, ids))
    return [move.id for move in moves], moves


def _discard(session: Session, ids: Sequence[int]) -> tuple[Sequence[int], Sequence[Move]]:
    moves = discard_jobs(session, ids)
    return [move.id for move in moves], moves


def _interrupted(done: int) -> Problem:
    return Problem(
        "unavailable",
        f"The database went away when {done} jobs were dealt with. Ask again for the rest.",
        headers={"Retry-After": str(RETRY_SOON)},
    )


class _Patching:
    """Running jobs again with payloads that a patch has changed."""

    def __init__(self, session: Session, patch: dict[str, Any]) -> None:
        self._patch = patch
        self._schemas = queries.payload_schemas(session)

    def check(self, session: Session, ids: Sequence[int]) -> None:
        """Raise a 422 problem for the first payload that would not fit, or is not to be changed."""
        for row in dead_letters.payloads(session, ids):
            check_changeable(row.job_id, row.type)
            misfit = self._schemas.misfit(row.type, merge(row.payload, self._patch))
            if misfit is not None:
                raise _does_not_fit(row.job_id, misfit)

    def run_again(
        self, session: Session, ids: Sequence[int]
    ) -> tuple[Sequence[int], Sequence[Move]]:
        """Run them again with payloads made anew, now that nobody else can change them."""
        rows = dead_letters.payloads(session, hold(session, ids))
        changed = {row.id: (row.type, merge(row.payload, self._patch)) for row in rows}
        fitting = {
            number: payload
            for number, (job_type, payload) in changed.items()
            if self._schemas.misfit(job_type, payload) is None
        }
        moves = run_again(session, list(fitting), payloads=fitting)
        return [move.id for move in moves], moves


def _does_not_fit(job_id: str, misfit: Misfit) -> Problem:
    return Problem(
        "validation_failed",
        f"The payload of {job_id} would not fit: {misfit.path}: {misfit.message}.",
        (FieldError(misfit.path, misfit.message),),
        more={"job_id": job_id},
    )
