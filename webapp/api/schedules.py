"""Schedules: templates of jobs that are made at certain times."""

from http import HTTPStatus

from flask import Response, url_for
from flask.typing import ResponseReturnValue

from scheduler import clock
from scheduler.models import Schedule, User
from scheduler.states import Role, Scope
from webapp import access, queries, schedules, serialise
from webapp.answers import answer
from webapp.api.jobs import location_of
from webapp.endpoints import Resource
from webapp.errors import prefers_html
from webapp.extensions import db
from webapp.schemas.groundwork import OwnerPage, OwnerQuery
from webapp.schemas.jobs import JobAnswer
from webapp.schemas.schedules import ScheduleAnswer, ScheduleList, SchedulePatch, ScheduleRequest
from webapp.submitting import finish, idempotency_key
from webapp.views.schedules import schedule_page, schedules_page

_REFUSALS = ("unknown_type", "unknown_dependency", "never_fits")

bp = Resource("api_schedules", __name__)


@bp.route_of(
    "GET",
    "/schedules",
    summary="List schedules",
    scope=Scope.READ,
    query=OwnerPage,
    answers={200: ScheduleList},
    refuses=("invalid_cursor",),
)
def list_schedules(query: OwnerPage) -> ResponseReturnValue:
    """Own schedules, or everybody's for operators, newest first; browsers get the page."""
    if prefers_html():
        return schedules_page(query)
    visible = access.visible_schedules(access.require(), query.owner)
    found, cursor = queries.schedules(db.session(), visible, limit=query.limit, cursor=query.cursor)
    now = clock.now()
    told = [schedules.schedule_to_json(schedule, owner, now=now) for schedule, owner in found]
    return answer({"schedules": told, "next_cursor": cursor})


@bp.route_of(
    "POST",
    "/schedules",
    summary="Make a schedule",
    scope=Scope.SUBMIT,
    role=Role.USER,
    body=ScheduleRequest,
    audits="schedules.create",
    answers={201: ScheduleAnswer},
    refuses=("name_taken", "too_many_schedules", "unknown_owner", *_REFUSALS),
)
def make_schedule(body: ScheduleRequest) -> Response:
    """Each tick from now on makes one job of the template, called `NAME@20260115T023000Z` after it.

    `cron` has the five fields of Debian's cron: minute, hour, day of the month, month, day of the
    week, with names, lists, ranges, steps, `L`, `LW`, `5L` and `MON#2`. A line that never fires is
    refused. It goes by the clock of `timezone`; on days when that clock is changed

    - a line for set times, with no star in front of minute and hour, fires once for each of them:
      a time that the clock skips when the clock goes on (02:30 at 03:00), a time that it shows
      twice the first time;
    - a line with a star there, such as `*/15 * * * *`, follows the clock: what is skipped is left
      out, what is shown twice fires twice.

    `every_seconds`, a whole number from 1, counts from when it was set, by no clock on a wall.

    A tick is missed if no scheduler sees to it within a minute. `catch_up` says which of those make
    jobs later: `none`, the `latest` one, or `all` in their order. A schedule that was paused goes
    on from when it is resumed. A tick that is refused as a submission would be, or fails, is noted
    in `last_error`; under `all`, ticks wait for room in a full backlog instead. A job that is too
    large for what there is at its tick waits.
    """
    session = db.session()
    account = access.require()
    schedule = schedules.add(session, account, body, now=clock.now())
    return _kept(schedule, 201)


@bp.route_of(
    "GET",
    "/schedules/<job_id:name>",
    summary="Read a schedule",
    scope=Scope.READ,
    answers={200: ScheduleAnswer},
    query=OwnerQuery,
    refuses=("ambiguous_name",),
)
def read_schedule(name: str, query: OwnerQuery) -> ResponseReturnValue:
    """What it makes, its next five ticks, and what came of the last ones; browsers get the page."""
    schedule = access.find_schedule(access.require(), name, query.owner)
    return schedule_page(schedule) if prefers_html() else _kept(schedule)


@bp.route_of(
    "PATCH",
    "/schedules/<job_id:name>",
    summary="Change a schedule",
    scope=Scope.SUBMIT,
    role=Role.USER,
    body=SchedulePatch,
    audits="schedules.change",
    answers={200: ScheduleAnswer},
    query=OwnerQuery,
    refuses=("ambiguous_name", *_REFUSALS),
)
def change_schedule(name: str, body: SchedulePatch, query: OwnerQuery) -> Response:
    """What is left out stays; a template is replaced as a whole.

    With other times, or resumed, it goes on from now.
    """
    schedule = access.find_schedule(access.require(), name, query.owner, lock=True)
    schedules.change(db.session(), schedule, body)
    return _kept(schedule)


@bp.route_of(
    "DELETE",
    "/schedules/<job_id:name>",
    summary="Delete a schedule",
    scope=Scope.SUBMIT,
    role=Role.USER,
    answers={204: None},
    audits="schedules.delete",
    query=OwnerQuery,
    refuses=("ambiguous_name",),
)
def delete_schedule(name: str, query: OwnerQuery) -> Response:
    """The jobs it has made stay, and go on."""
    schedule = access.find_schedule(access.require(), name, query.owner, lock=True)
    schedules.delete(db.session(), schedule)
    db.session.commit()
    return Response(status=204)


@bp.route_of(
    "POST",
    "/schedules/<job_id:name>/run",
    summary="Run a schedule now",
    scope=Scope.SUBMIT,
    role=Role.USER,
    answers={201: JobAnswer, 200: JobAnswer},
    audits="schedules.run",
    query=OwnerQuery,
    refuses=("ambiguous_name", "unknown_owner", "backlog_full", "job_id_conflict", *_REFUSALS),
    headers=("Idempotency-Key",),
)
def run_schedule(name: str, query: OwnerQuery) -> Response:
    """Makes a job called `NAME@manual_…` at once, paused or not, whatever `overlap` says.

    Its ticks stay as they are. To them it is an earlier job of the schedule like any other.
    """
    session = db.session()
    schedule = access.find_schedule(access.require(), name, query.owner, lock=True)
    made = schedules.run(session, schedule, key=idempotency_key())
    is_there = bool(made.duplicates)
    views = queries.jobs_by_ids(session, made.ids, are_new=not is_there, have_links=True)
    job = serialise.job_to_json(views[made.ids[0]], now=clock.now()) | {"duplicate": is_there}
    finish(made.moves)
    response = answer(job, 200 if is_there else 201)
    response.headers["Location"] = location_of(job)
    return response


def _kept(schedule: Schedule, status: int = 200) -> Response:
    """Commit, and answer with what is kept, and where if it is new."""
    session = db.session()
    owner = session.get_one(User, schedule.owner_id).username
    told = schedules.schedule_to_json(schedule, owner, now=clock.now())
    session.commit()
    response = answer(told, status)
    if status == HTTPStatus.CREATED:
        named = {"name": told["name"], "owner": access.unless_caller(owner)}
        response.headers["Location"] = url_for("api_schedules.read_schedule", **named)
    return response
