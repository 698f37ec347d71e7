"""The Schedules page, one schedule with its last jobs, and what their forms do."""

from collections.abc import Callable, Mapping

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
from sqlalchemy.orm import Session

from scheduler import clock
from scheduler.errors import FairqError, SubmissionRefused, TimingInvalid
from scheduler.models import Schedule, User
from scheduler.states import Role
from scheduler.store.moves import Move
from webapp import access, once, queries, schedules
from webapp.errors import Problem
from webapp.extensions import db
from webapp.schedule_form import ScheduleForm
from webapp.schemas.groundwork import OwnerPage
from webapp.schemas.schedules import SchedulePatch
from webapp.submitting import finish
from webapp.views import frame

bp = Blueprint("schedules", __name__)

JOBS_SHOWN = 10


def schedules_page(query: OwnerPage) -> Response:
    """Show the schedules the reader may see; the address is shared with the JSON side."""
    account = frame.reader()
    visible = access.visible_schedules(account, query.owner)
    found, cursor = queries.schedules(db.session(), visible, limit=query.limit, cursor=query.cursor)
    now = clock.now()
    shown = [schedules.schedule_to_json(schedule, owner, now=now) for schedule, owner in found]
    return make_response(
        render_template(
            "schedules/index.html",
            schedules=shown,
            query=query,
            next_cursor=cursor,
            key=once.new_key(),
        )
    )


def schedule_page(schedule: Schedule, form: ScheduleForm | None = None) -> Response:
    """Show one schedule, its last jobs and the form that changes it."""
    frame.reader()
    session = db.session()
    owner = session.get_one(User, schedule.owner_id).username
    last = queries.last_jobs_of_schedule(schedule.owner_id, schedule.name, limit=JOBS_SHOWN)
    return make_response(
        render_template(
            "schedules/show.html",
            schedule=schedules.schedule_to_json(schedule, owner, now=clock.now()),
            jobs=session.scalars(last).all(),
            form=form or ScheduleForm.of(schedule),
            key=once.new_key(),
        ),
        422 if form else 200,
    )


@bp.get("/new-schedule")
@frame.page
def new() -> ResponseReturnValue:
    """Show the form of a new schedule, filled with a job that can be made as it stands."""
    access.require(role=Role.USER)
    types = queries.offered_types(db.session())
    if not types:
        return _new_page(None)
    asks_nothing = (kind for kind in types if not (kind.payload_schema or {}).get("required"))
    return _new_page(ScheduleForm.empty(next(asks_nothing, types[0]).name))


@bp.post("/new-schedule")
@frame.page
def make() -> ResponseReturnValue:
    """Make what the form says, by the path the JSON side takes."""
    account, session = access.require(role=Role.USER), db.session()
    form = ScheduleForm.filled(request.form)
    wanted = form.request()
    if wanted is None:
        return _new_page(form, 422)
    try:
        schedule = schedules.add(session, account, wanted, now=clock.now())
    except (SubmissionRefused, TimingInvalid, Problem) as refusal:
        session.rollback()
        _explain(form, refusal)
        return _new_page(form, 422)
    session.commit()
    flash(f"{schedule.name} is made.")
    return redirect(frame.schedule_url({"name": schedule.name, "owner": account.username}))


@bp.post("/schedules/<job_id:name>")
@frame.page
def act(name: str) -> ResponseReturnValue:
    """Do with a schedule what a form's button says, then go back to where the button was."""
    account, owner = access.require(role=Role.USER), request.args.get("owner")
    schedule = access.find_schedule(account, name, owner, lock=True)
    action = request.form.get("action", "")
    if action == "save":
        return _save(schedule)
    if action not in _ACTIONS:
        raise Problem("bad_request", "The form does not say what to do with the schedule.")
    _carry_out(schedule, action)
    here = frame.schedule_url({"name": name, "owner": owner})
    back = url_for("api_schedules.list_schedules") if action == "delete" else here
    return redirect(frame.safe_target(request.form.get("next") or back))


def _save(schedule: Schedule) -> ResponseReturnValue:
    session = db.session()
    form = ScheduleForm.filled(request.form, name=schedule.name)
    wanted = form.patch()
    if wanted is None:
        return schedule_page(schedule, form)
    try:
        schedules.change(session, schedule, wanted)
    except (SubmissionRefused, TimingInvalid, Problem) as refusal:
        session.rollback()
        _explain(form, refusal)
        return schedule_page(schedule, form)
    session.commit()
    flash(f"{schedule.name} is changed.")
    owner = request.args.get("owner")
    return redirect(frame.schedule_url({"name": schedule.name, "owner": owner}))


def _carry_out(schedule: Schedule, action: str) -> None:
    name = schedule.name
    try:
        moves, told = _ACTIONS[action](db.session(), schedule)
    except (SubmissionRefused, TimingInvalid) as refusal:
        db.session.rollback()
        flash(f"{name} stays as it is: {refusal}.", "error")
        return
    finish(moves)
    flash(f"{name} {told}.")


_Done = tuple[list[Move], str]


def _pause(session: Session, schedule: Schedule) -> _Done:
    schedules.change(session, schedule, SchedulePatch(paused=True))
    return [], "is paused"


def _resume(session: Session, schedule: Schedule) -> _Done:
    schedules.change(session, schedule, SchedulePatch(paused=False))
    return [], "goes on"


def _run(session: Session, schedule: Schedule) -> _Done:
    made = schedules.run(session, schedule, key=once.key_of(request.form, schedule.name))
    return made.moves, "runs now" if made.moves else "was run by the same button before"


def _delete(session: Session, schedule: Schedule) -> _Done:
    schedules.delete(session, schedule)
    return [], "is deleted; the jobs it has made stay"


_ACTIONS: Mapping[str, Callable[[Session, Schedule], _Done]] = {
    "pause": _pause,
    "resume": _resume,
    "run": _run,
    "delete": _delete,
}


def _explain(form: ScheduleForm, refusal: FairqError | Problem) -> None:
    """Put why something was refused beside the fields of its form."""
    match refusal:
        case Problem():
            form.take(refusal)
        case SubmissionRefused():
            form.refuse(refusal.path, str(refusal))
        case TimingInvalid():
            form.refuse(refusal.field, str(refusal))


def _new_page(form: ScheduleForm | None, status: int = 200) -> ResponseReturnValue:
    frame.reader()
    return render_template("schedules/new.html", form=form), status
