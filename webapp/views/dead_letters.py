"""The Dead letters page: alike failures together, one group's jobs, retrying and discarding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from flask import (
    Blueprint,
    Response,
    flash,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
)
from flask.typing import ResponseReturnValue
from sqlalchemy import ColumnElement

from scheduler.models import Job
from scheduler.states import JobStatus, Role
from scheduler.store.revival import run_again
from webapp import access, audit, clearing, dead_letters, queries
from webapp.access import Account
from webapp.answers import json_body
from webapp.bodies import parse_body
from webapp.dead_letters import Filter
from webapp.errors import Problem
from webapp.extensions import db
from webapp.payload_form import PayloadForm
from webapp.schemas.dead_letters import DeadLettersQuery, DeadLettersRequest
from webapp.services import services
from webapp.views import frame, listing, reads
from webapp.views.jobs import retried

bp = Blueprint("dead_letters", __name__)

FILTERS = ("type", "owner", "q", "failed_after", "failed_before")
"""What the address of the page may narrow, in the order it is shown."""

_MEANT = ("fingerprint", *FILTERS)

_NAMES = {"q": "text", "failed_after": "failed after", "failed_before": "failed before"}

_MOMENT = timedelta(microseconds=1)

_RETRYABLE = {JobStatus.FAILED, JobStatus.CANCELLED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What the page shows whether a group is open or not.

    *meant* narrows its forms to what is there to be seen: who fails meanwhile is left alone.
    """

    filters: Mapping[str, str]
    meant: Mapping[str, str]
    active: Sequence[listing.ActiveFilter]
    types: Sequence[str]
    owners: Sequence[str]
    fingerprint: str | None
    total: int
    is_more: bool
    paged: bool


def dead_letters_page(query: DeadLettersQuery) -> Response:
    """Show groups, or the jobs of one; the address is shared with the JSON side."""
    account = frame.reader()
    visible, wanted = access.visible_jobs(account, query.owner), clearing.filter_of(query)
    view = _overview(account, query, visible, wanted)
    if query.fingerprint is None:
        page = render_template("dead_letters/index.html", **_groups(view, query, visible, wanted))
    else:
        page = render_template("dead_letters/group.html", **_group(view, query, visible, wanted))
    return make_response(page)


def url_of(filters: Mapping[str, str], **more: str) -> str:
    """Return the address of the page under *filters*."""
    named = {name: filters[name] for name in FILTERS if name in filters} | more
    query = f"?{urlencode(named)}" if named else ""
    return url_for("api_dead_letters.list_dead_letters") + query


@bp.post("/dead-letters")
@frame.page
def clear() -> ResponseReturnValue:
    """Retry or discard what a form names, then go back to where its button was."""
    account = access.require(role=Role.USER)
    asked = _asked(request.form)
    match request.form.get("action"):
        case "discard":
            _flash_outcome(asked, clearing.discard(account, asked), "is discarded", "are discarded")
        case "retry":
            _flash_outcome(asked, clearing.retry(account, asked), "runs again", "run again")
        case _:
            raise Problem("bad_request", "The form does not say what to do with the jobs.")
    return redirect(frame.safe_target(request.form.get("next") or url_of({})))


@bp.get("/jobs/<job_id:job_id>/edit")
@frame.page
def edit(job_id: str) -> ResponseReturnValue:
    """Show the payload of a job that can be retried, to be changed before."""
    account = access.require(role=Role.USER)
    job = access.find_job(account, job_id, request.args.get("owner"))
    if job.status not in _RETRYABLE:
        raise Problem("not_retryable", f"The job is {job.status}.")
    clearing.check_changeable(job.job_id, job.type)
    return _edit_page(job, PayloadForm.of(job.payload))


@bp.post("/jobs/<job_id:job_id>/edit")
@frame.page
def retry_edited(job_id: str) -> ResponseReturnValue:
    """Run a job again with the payload a form holds; problems stand at the field."""
    account, session = access.require(role=Role.USER), db.session()
    job = access.find_job(account, job_id, request.args.get("owner"))
    clearing.check_changeable(job.job_id, job.type)
    form = PayloadForm(request.form.get("payload", ""))
    payload = form.read(job.type, queries.payload_schemas(session))
    if payload is None:
        return _edit_page(job, form, 422)
    moves = run_again(session, [job.id], payloads={job.id: payload})
    session.refresh(job)
    if moves:
        audit.note_about_job("jobs.retry", job, clearing.PAYLOAD_CHANGED)
    return retried(job, moves)


def _overview(
    account: Account, query: DeadLettersQuery, visible: ColumnElement[bool], wanted: Filter
) -> Overview:
    session = db.session()
    filters = {name: request.args[name] for name in FILTERS if request.args.get(name)}
    total = dead_letters.count(session, visible, wanted, limit=clearing.LIMIT + 1)
    latest = dead_letters.last_failure(session, visible, wanted)
    until = {} if latest is None else {"failed_before": (latest + _MOMENT).isoformat()}
    return Overview(
        filters=filters,
        meant=filters | until,
        active=_active(filters, query.fingerprint),
        types=[kind.name for kind in queries.job_types(session)],
        owners=reads.usernames(session) if account.sees_everybody else (),
        fingerprint=query.fingerprint,
        total=min(total, clearing.LIMIT),
        is_more=total > clearing.LIMIT,
        paged=query.cursor is not None,
    )


def _groups(
    view: Overview, query: DeadLettersQuery, visible: ColumnElement[bool], wanted: Filter
) -> dict[str, Any]:
    page = dead_letters.groups(
        db.session(), visible, wanted, limit=query.limit, cursor=query.cursor
    )
    return {
        "view": view,
        "url_of": url_of,
        "groups": page.groups,
        "is_cut": page.looked_at == dead_letters.GROUPED_LIMIT,
        "looked_at": page.looked_at,
        "next_url": page.next_cursor and url_of(view.filters, cursor=page.next_cursor),
    }


def _group(
    view: Overview, query: DeadLettersQuery, visible: ColumnElement[bool], wanted: Filter
) -> dict[str, Any]:
    session = db.session()
    groups = dead_letters.groups(session, visible, wanted, limit=1).groups
    page = dead_letters.page(session, visible, wanted, limit=query.limit, cursor=query.cursor)
    more = {"fingerprint": str(query.fingerprint), "cursor": page.next_cursor or ""}
    return {
        "view": view,
        "url_of": url_of,
        "group": groups[0] if groups else None,
        "jobs": listing.jobs_to_json(page.jobs),
        "next_url": page.next_cursor and url_of(view.filters, **more),
    }


def _active(filters: Mapping[str, str], fingerprint: str | None) -> list[listing.ActiveFilter]:
    kept = {"fingerprint": fingerprint} if fingerprint else {}
    return [
        listing.ActiveFilter(
            _NAMES.get(name, name),
            value,
            url_of({other: said for other, said in filters.items() if other != name}, **kept),
        )
        for name, value in filters.items()
    ]


def _asked(form: Mapping[str, str]) -> DeadLettersRequest:
    """Read which dead letters a form means; one that does not say so means none."""
    given = {name: form[name] for name in _MEANT if form.get(name)}
    body: dict[str, Any] = {"filter": given}
    if form.get("job_id"):
        body = {"job_ids": [form["job_id"]], **given}
    elif form.get("meant") != "all that match":
        raise Problem("bad_request", "The form does not say which jobs are meant.")
    return parse_body(DeadLettersRequest, json_body(body))


def _flash_outcome(
    asked: DeadLettersRequest, cleared: clearing.Cleared, one: str, several: str
) -> None:
    if cleared.done == 0:
        flash("Nothing was left to do: somebody has dealt with it before.", "error")
        return
    name = asked.job_ids[0] if asked.job_ids else "1 job"
    told = f"{name} {one}." if cleared.done == 1 else f"{cleared.done:,} jobs {several}."
    if cleared.next_cursor is not None:
        told += " More of them match: do it again to go on."
    flash(told)


def _edit_page(job: Job, form: PayloadForm, status: int = 200) -> ResponseReturnValue:
    frame.reader()
    shown = listing.jobs_to_json([queries.one_job(db.session(), services().redis, job)])[0]
    return render_template("dead_letters/edit.html", job=shown, form=form), status
