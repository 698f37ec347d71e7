"""What values look like in answers; the shapes are those of ``schemas``."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from scheduler.events import Standing
from scheduler.models import Attempt, Job, JobEvent, JobLog, JobType
from scheduler.states import WAITING, Condition, JobStatus
from webapp.answers import utc
from webapp.dead_letters import Group, GroupPage
from webapp.queries import JobView, Link
from webapp.workflows import Workflow

_PARENTS_NAMED = 3


def job_to_json(view: JobView, *, now: datetime) -> dict[str, Any]:
    """Return a job as the contract answers it."""
    job = view.job
    return {
        "job_id": job.job_id,
        "type": job.type,
        "status": job.status,
        "reason": job.reason,
        "owner": view.owner,
        "priority": job.job_class,
        "priority_level": job.priority_level,
        "description": job.description,
        "tags": job.tags,
        "payload": job.payload,
        "depends_on": [_dependency(link) for link in view.depends_on],
        "dependents_count": view.dependents_count,
        "resource_requirements": _resources(job),
        "retry_config": job.retry_config,
        "timeout_seconds": job.timeout_seconds,
        "executor": job.executor,
        "attempt": job.attempt,
        "created_at": utc(job.created_at),
        "run_at": utc(job.run_at),
        "start_by": utc(job.start_by),
        "ready_at": utc(job.ready_at),
        "queued_at": utc(job.queued_at),
        "started_at": utc(job.started_at),
        "finished_at": utc(job.finished_at),
        "waited_seconds": waited(job, now).total_seconds(),
        "elapsed_seconds": _seconds(elapsed(job, now)),
        "progress": _progress(job),
        "result": job.result,
        "error": error_to_json(job.error_type, job.error_message),
        "worker": job.worker,
        "schedule": job.schedule,
        "callback_url": job.callback_url,
        "request_id": job.request_id,
        "position_in_queue": view.standing.position if view.standing and _waits(job) else None,
        "waiting": waiting_to_json(view),
    }


def dead_letter_to_json(view: JobView, *, now: datetime) -> dict[str, Any]:
    """Return a failed job with what it has in common with others."""
    return job_to_json(view, now=now) | {"fingerprint": view.job.error_fingerprint}


def groups_to_json(page: GroupPage, *, name_owners: bool) -> dict[str, Any]:
    """Return groups of dead letters, with their owners for who may know them."""
    return {
        "groups": [
            _group(group) | {"owners": group.owners if name_owners else None}
            for group in page.groups
        ],
        "looked_at": page.looked_at,
        "next_cursor": page.next_cursor,
    }


def waited(job: Job, now: datetime) -> timedelta:
    """Return how long *job* waited for its last start, or waits until now."""
    end = (None if _waits(job) else job.started_at) or job.finished_at or now
    return max(end - job.created_at, timedelta(0))


def elapsed(job: Job, now: datetime) -> timedelta | None:
    """Return how long the last attempt ran, or runs until now; None if there is none to tell."""
    if job.started_at is None or _waits(job):
        return None
    return max((job.finished_at or now) - job.started_at, timedelta(0))


def waiting_to_json(view: JobView) -> dict[str, Any] | None:
    """Return why a job waits, by the leader's books or else by its status; None if it does not."""
    if not _waits(view.job):
        return None
    if view.standing is not None:
        return {
            "code": view.standing.code,
            "message": view.standing.message,
            "estimated_start": _estimate(view.standing),
        }
    code, message = _reason(view)
    return {"code": code, "message": message, "estimated_start": None}


def error_to_json(error_type: str | None, message: str | None) -> dict[str, Any] | None:
    """Return an error, or None where there is none."""
    return None if error_type is None else {"type": error_type, "message": message}


def attempt_to_json(attempt: Attempt) -> dict[str, Any]:
    """Return one try at a job."""
    return {
        "attempt": attempt.attempt,
        "worker": attempt.worker,
        "queued_at": utc(attempt.queued_at),
        "started_at": utc(attempt.started_at),
        "finished_at": utc(attempt.finished_at),
        "outcome": attempt.outcome,
        "error": error_to_json(attempt.error_type, attempt.error_message),
        "traceback": attempt.traceback,
        "peak_memory_mb": attempt.peak_memory_mb,
        "cpu_seconds": attempt.cpu_seconds,
    }


def log_to_json(line: JobLog) -> dict[str, Any]:
    """Return one line of a job's log."""
    return {
        "at": utc(line.at),
        "attempt": line.attempt,
        "level": line.level,
        "message": line.message,
    }


def event_to_json(event: JobEvent) -> dict[str, Any]:
    """Return one move of a job."""
    return {
        "seq": event.seq,
        "at": utc(event.at),
        "verb": event.verb,
        "status": event.status,
        "attempt": event.attempt,
        "data": event.data,
    }


def workflow_to_json(workflow: Workflow, *, now: datetime) -> dict[str, Any]:
    """Return connected jobs and what they wait for."""
    names = {job.id: job.job_id for job in workflow.jobs}
    # A job that was forgotten between the reads is missing, and so are its edges.
    edges = [edge for edge in workflow.edges if {edge.parent, edge.child} <= names.keys()]
    return {
        "jobs": [_graph_job(job, now) for job in workflow.jobs],
        "edges": [
            {
                "from": names[edge.parent],
                "to": names[edge.child],
                "when": edge.when,
                "met": edge.met,
            }
            for edge in edges
        ],
        "truncated": not workflow.is_whole,
    }


def type_to_json(job_type: JobType, defaults: dict[str, Any]) -> dict[str, Any]:
    """Return a kind of job."""
    return {
        "name": job_type.name,
        "description": job_type.description,
        "payload_schema": job_type.payload_schema,
        "resource_requirements": _resources(job_type),
        "timeout_seconds": job_type.timeout_seconds,
        "max_timeout_seconds": job_type.max_timeout_seconds,
        "retry_config": defaults | job_type.retry_config,
        "executor": job_type.executors[0],
        "executors": job_type.executors,
    }


def _graph_job(job: Job, now: datetime) -> dict[str, Any]:
    return {
        "job_id": job.job_id,
        "type": job.type,
        "status": job.status,
        "reason": job.reason,
        "description": job.description,
        "created_at": utc(job.created_at),
        "started_at": utc(job.started_at),
        "finished_at": utc(job.finished_at),
        "elapsed_seconds": _seconds(elapsed(job, now)),
        "progress": _progress(job),
    }


def _group(group: Group) -> dict[str, Any]:
    latest = group.example
    return {
        "fingerprint": group.fingerprint,
        "type": latest.type,
        "error": error_to_json(latest.error_type, latest.error_message),
        "count": group.count,
        "first_failed_at": utc(group.first_failed_at),
        "last_failed_at": utc(group.last_failed_at),
        "example": latest.job_id,
    }


def _waits(job: Job) -> bool:
    return job.status in WAITING


def _dependency(link: Link) -> str | dict[str, str]:
    if link.when is Condition.COMPLETED:
        return link.job_id
    return {"job_id": link.job_id, "when": str(link.when)}


def _resources(sized: Job | JobType) -> dict[str, Any]:
    return {"cpu_units": float(sized.cpu_units), "memory_mb": sized.memory_mb}


def _progress(job: Job) -> dict[str, Any] | None:
    if job.progress_fraction is None and job.progress_message is None:
        return None
    return {"fraction": job.progress_fraction, "message": job.progress_message}


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()


def _estimate(standing: Standing) -> dict[str, Any] | None:
    if standing.earliest is None:
        return None
    return {
        "earliest": utc(standing.earliest),
        "latest": utc(standing.latest),
        "method": standing.method,
    }


def _reason(view: JobView) -> tuple[str, str]:
    job = view.job
    match JobStatus(job.status):
        case JobStatus.BLOCKED:
            return "dependencies", _open_parents(view.depends_on)
        case JobStatus.SCHEDULED:
            return "time", f"Its time has not come: it is due at {_instant(job.due_at)}."
        case JobStatus.RETRYING:
            return "backoff", f"Its next attempt is due at {_instant(job.due_at)}."
        case _ if not view.has_worker:
            return "no_worker", "No worker is running; it starts when one does."
        case _:
            return "turn", "It is in line and starts when its turn comes."


def _open_parents(links: Sequence[Link]) -> str:
    names = [link.job_id for link in links if not link.met]
    if not names:
        return "The jobs it waited for are done; it is about to get in line."
    named = ", ".join(names[:_PARENTS_NAMED])
    rest = len(names) - _PARENTS_NAMED
    return f"It waits for {named}{f' and {rest} more' if rest > 0 else ''}."


def _instant(instant: datetime | None) -> str:
    shown = utc(instant)
    return shown.strftime("%Y-%m-%d %H:%M:%S UTC") if shown else "a time yet to be set"
