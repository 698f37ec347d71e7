"""The Jobs page, a job's own page, submitting, cancelling and retrying by form."""

from collections.abc import Mapping, Sequence
from typing import Any

from flask import (
    Blueprint,
    Response,
    flash,
    make_response,
    redirect,
    render_template,
    request,
)
from flask.typing import ResponseReturnValue

from scheduler import clock
from scheduler.errors import SubmissionRefused
from scheduler.job_request import is_errand
from scheduler.models import Job, JobType
from scheduler.states import JobStatus, Role
from scheduler.store import cancellation
from scheduler.store.moves import Move
from webapp import access, audit, dead_letters, once, presentation, queries
from webapp.access import Account
from webapp.errors import Problem
from webapp.extensions import db
from webapp.forms import JobForm
from webapp.services import services
from webapp.submitting import Intake, finish, take_in
from webapp.views import frame, history, listing, reads

bp = Blueprint("jobs", __name__)
bp.record(frame.furnish)

LOGS_SHOWN = 200
EVENTS_SHOWN = 200
DEPENDENTS_SHOWN = 20


@bp.get("/")
@frame.page
def index() -> ResponseReturnValue:
    """Show the jobs the reader may see, narrowed by what the address says."""
    account = frame.reader()
    filters = listing.filters_of(request.args)
    spoken = listing.spoken(filters)
    if spoken is not None:
        return redirect(listing.url_of(spoken))
    return render_template("jobs/index.html", view=listing.listing(account, filters, request.args))


def job_page(job: Job) -> Response:
    """Show everything known about one job the reader may see."""
    account = frame.reader()
    session, now = db.session(), clock.now()
    view = queries.one_job(session, services().redis, job)
    shown = listing.jobs_to_json([view])[0]
    tries = queries.attempts(session, job)
    moves, _ = queries.events(session, job, limit=EVENTS_SHOWN)
    around: dict[str, Any] = {
        "may_be_repeated": not is_errand(job.type) and session.get(JobType, job.type) is not None,
        "dead_letter": _dead_letter(account, job),
        "was_put_off": history.was_put_off(tries),
        "attempts_used": job.attempt - job.attempts_forgiven,
        "attempts": [history.attempt(one, now) for one in tries],
        "logs": reads.last_logs(session, job, limit=LOGS_SHOWN),
        "logs_shown": LOGS_SHOWN,
        "timeline": history.timeline(moves),
        "dependencies": view.depends_on,
        "dependents": queries.children_of(session, job, limit=DEPENDENTS_SHOWN),
        "peak_memory_mb": history.peak_memory_mb(tries),
        "cpu_units": history.average_cpu_units(tries),
        "curl": presentation.curl(request.host_url, history.submission_of(shown)),
    }
    return make_response(render_template("jobs/show.html", job=shown, page=around))


@bp.get("/submit")
@frame.page
def submit() -> ResponseReturnValue:
    """Show the types of jobs, or the form of one; ``like`` fills it from an existing job."""
    account = access.require(role=Role.USER)
    like, kind = request.args.get("like"), request.args.get("type")
    if like is not None:
        job = access.find_job(account, like, request.args.get("owner"))
        view = queries.one_job(db.session(), services().redis, job)
        model = history.submission_of(listing.jobs_to_json([view])[0])
        form = JobForm.like(_type(job.type), model)
        if job.owner_id != account.id:
            flash(f"{job.job_id} is a job of {view.owner}; what you submit here is yours.")
        return _form_page(form)
    if kind is not None:
        return _form_page(JobForm.empty(_type(kind)))
    frame.reader()
    return render_template("jobs/submit.html", types=queries.offered_types(db.session()))


@bp.post("/submit")
@frame.page
def submit_form() -> ResponseReturnValue:
    """Submit what the form says, by the path the JSON side takes; problems stand at the fields.

    If that is only to be tried, the answer is what would become of it.
    """
    account = access.require(role=Role.USER)
    form = JobForm.filled(_type(request.args.get("type", "")), request.form)
    wanted = form.request()
    if wanted is None:
        return _form_page(form, 422)
    is_trial = "try" in request.form
    key = None if is_trial else once.key_of(request.form, wanted.model_dump_json())
    try:
        intake = take_in(account, [wanted], batch=False, key=key)
    except SubmissionRefused as refusal:
        db.session.rollback()
        form.refuse(refusal.path, str(refusal))
        return _form_page(form, 422)
    if is_trial:
        return _form_page(form, tried=_taken_back(intake))
    job_id = intake.jobs[0].job.job_id
    finish(intake.moves)
    flash(f"{job_id} was there already." if intake.duplicates else f"{job_id} is submitted.")
    return redirect(frame.job_url({"job_id": job_id}))


@bp.post("/jobs/<job_id:job_id>/cancel")
@frame.page
def cancel(job_id: str) -> ResponseReturnValue:
    """Cancel a job, then go back to where the button was."""
    account = access.require(role=Role.USER)
    job = access.find_job(account, job_id, request.args.get("owner"))
    moves = audit.act_on_job("jobs.cancel", job, cancellation.cancel)
    _flash_outcome(job, asked=bool(moves))
    finish(moves)
    return _back_from(job)


def _taken_back(intake: Intake) -> dict[str, Any]:
    """Return what a submission would have come to, which nobody has seen yet, and undo it."""
    view = queries.one_job(db.session(), services().redis, intake.jobs[0].job)
    told = listing.jobs_to_json([view])[0] | {"is_there": bool(intake.duplicates)}
    db.session.rollback()
    return told


def retried(job: Job, moves: Sequence[Move]) -> Response:
    """Commit a retry that a form asked for, say what became of it, and go back."""
    if not moves:
        flash(f"{job.job_id} is {job.status}: there is nothing to retry.", "error")
    elif job.status == JobStatus.BLOCKED:
        flash(f"{job.job_id} runs again when what it waits for is done.")
    else:
        flash(f"{job.job_id} runs again as soon as its turn comes.")
    finish(moves)
    return _back_from(job)


def _back_from(job: Job) -> Response:
    """Lead back to where the button of a form was, or else to the job."""
    back = frame.job_url({"job_id": job.job_id, "owner": request.args.get("owner")})
    return make_response(redirect(frame.safe_target(request.form.get("next") or back)))


def _dead_letter(account: Account, job: Job) -> dict[str, Any] | None:
    """Return what is told of a failed job beside its error: how many others are alike."""
    if job.status != JobStatus.FAILED:
        return None
    alike = dead_letters.Filter(fingerprint=job.error_fingerprint)
    visible, most = access.visible_jobs(account), reads.COUNT_LIMIT
    others = dead_letters.count(db.session(), visible, alike, limit=most + 2) - 1
    return {
        "fingerprint": job.error_fingerprint,
        "discarded_at": job.discarded_at,
        "others": min(others, most),
        "are_more": others > most,
    }


def _flash_outcome(job: Job, *, asked: bool) -> None:
    if job.status == JobStatus.RUNNING:
        flash(f"{job.job_id} is asked to stop.")
    elif asked:
        flash(f"{job.job_id} is cancelled.")
    else:
        flash(f"{job.job_id} had finished before.", "error")


def _type(name: str) -> JobType:
    found = db.session.get(JobType, name) if name.isprintable() else None
    if found is None:
        raise Problem("not_found", f"No worker has registered a type named {name!r}.")
    return found


def _form_page(
    form: JobForm, status: int = 200, *, tried: Mapping[str, Any] | None = None
) -> ResponseReturnValue:
    frame.reader()
    key = once.new_key()
    return render_template("jobs/submit.html", form=form, key=key, tried=tried), status
