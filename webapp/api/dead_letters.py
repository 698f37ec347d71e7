"""Dead letters: listing failed jobs, running them again, discarding them."""

from typing import Any

from flask import Response
from flask.typing import ResponseReturnValue

from scheduler import clock
from scheduler.states import Role, Scope
from webapp import access, clearing, dead_letters, serialise
from webapp.answers import answer
from webapp.endpoints import Resource
from webapp.errors import prefers_html
from webapp.extensions import db
from webapp.schemas.dead_letters import (
    DeadLettersAnswer,
    DeadLettersQuery,
    DeadLettersRequest,
    DeadLettersRetry,
    Discarded,
    Retried,
)
from webapp.views.dead_letters import dead_letters_page

_REFUSALS = ("not_found", "ambiguous_job_id", "invalid_cursor")

bp = Resource("api_dead_letters", __name__)


@bp.route_of(
    "GET",
    "/dead-letters",
    summary="List failed jobs that nobody has discarded",
    scope=Scope.READ,
    query=DeadLettersQuery,
    answers={200: DeadLettersAnswer},
    refuses=("invalid_cursor",),
)
def list_dead_letters(query: DeadLettersQuery) -> ResponseReturnValue:
    """Own ones, or everybody's for operators, the latest failure first; browsers get the page.

    With `group` those are put together whose errors are alike. Groups are made of the latest
    10,000 dead letters that owner, fingerprint and time leave; `looked_at` tells how many these
    were. Narrow the time to reach further back.
    """
    if prefers_html():
        return dead_letters_page(query)
    account, session = access.require(), db.session()
    visible, wanted = access.visible_jobs(account, query.owner), clearing.filter_of(query)
    if query.group:
        groups = dead_letters.groups(
            session, visible, wanted, limit=query.limit, cursor=query.cursor
        )
        return answer(serialise.groups_to_json(groups, name_owners=account.sees_everybody))
    page = dead_letters.page(session, visible, wanted, limit=query.limit, cursor=query.cursor)
    now = clock.now()
    jobs = [serialise.dead_letter_to_json(view, now=now) for view in page.jobs]
    return answer({"jobs": jobs, "next_cursor": page.next_cursor})


@bp.route_of(
    "POST",
    "/dead-letters/retry",
    summary="Run failed jobs again",
    scope=Scope.SUBMIT,
    role=Role.USER,
    body=DeadLettersRetry,
    answers={200: Retried},
    refuses=_REFUSALS,
    audits="jobs.retry",
)
def retry_dead_letters(body: DeadLettersRetry) -> Response:
    """With fresh attempts, and with payloads changed by `payload` if it is given.

    A payload that would not fit its type any more is refused with its job and field, and no job
    runs. Of a filter, up to 10,000 of the latest are run, those first that failed first; go on
    with `next_cursor`. Jobs that are no dead letters are left alone, so asking twice runs once.
    """
    cleared = clearing.retry(access.require(), body, body.payload)
    return answer({"retried": cleared.done, **_rest(cleared)})


@bp.route_of(
    "POST",
    "/dead-letters/discard",
    summary="Take failed jobs out of the dead letters",
    scope=Scope.SUBMIT,
    role=Role.USER,
    body=DeadLettersRequest,
    answers={200: Discarded},
    refuses=_REFUSALS,
    audits="jobs.discard",
)
def discard_dead_letters(body: DeadLettersRequest) -> Response:
    """They stay failed, and may still be run again one by one.

    Of a filter, up to 10,000 of the latest are discarded; go on with `next_cursor`.
    """
    cleared = clearing.discard(access.require(), body)
    return answer({"discarded": cleared.done, **_rest(cleared)})


def _rest(cleared: clearing.Cleared) -> dict[str, Any]:
    return {
        "skipped": cleared.skipped,
        "remaining": cleared.remaining,
        "next_cursor": cleared.next_cursor,
    }
