"""``python -m scheduler explain JOB``: why a job waits, in every number that matters.

What is told comes from planning once more on what the database holds at this moment, in a
transaction that can change nothing.
"""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from scheduler.models import Job
from scheduler.policy.curve import Queued, make_curve, position_on, start_on
from scheduler.policy.durations import Expected
from scheduler.policy.experience import Experience
from scheduler.policy.explanation import Explanation, explain, explain_beyond
from scheduler.policy.forecast import estimate, forecast
from scheduler.policy.meters import effective_weight
from scheduler.policy.plan import Plan, plan
from scheduler.policy.rules import JobTerms, rules_of
from scheduler.policy.wording import duration_line, to_lines
from scheduler.snapshot import Candidate, Snapshot
from scheduler.states import FINISHED, WAITING, JobClass, JobStatus
from scheduler.store import durations, estimates, lookup
from scheduler.store.preview import Scene, read_scene

_PARENTS_NAMED = 10


class _Commands(Protocol):
    def add_parser(self, name: str, **options: Any) -> ArgumentParser: ...


def add_to(commands: _Commands) -> None:
    """Add the command to a command line."""
    parser = commands.add_parser("explain", help="tell why a job waits")
    parser.add_argument("job", metavar="JOB", help="its job_id")
    parser.add_argument("--owner", help="whose it is, where several owners have one of this name")
    parser.add_argument("--json", action="store_true", help="answer as JSON")


def run(
    given: Namespace,
    say: Callable[[str], object],
    open_session: Callable[[], AbstractContextManager[Session]],
) -> int:
    """Explain the job that was asked for; 1 if that cannot be done."""
    try:
        with open_session() as session, session.begin():
            lookup.see_one_moment(session)
            found = lookup.jobs_named(session, given.job, given.owner)
            told = about(session, *found[0]) if len(found) == 1 else None
    except OperationalError:
        say("the database does not answer")
        return 1
    if told is None:
        say(_not_one(given.job, [owner for _, owner in found]))
        return 1
    say(json.dumps(told, indent=2) if given.json else "\n".join(told["lines"]))
    return 0


def _not_one(name: str, owners: list[str]) -> str:
    if not owners:
        return f"there is no job {name!r}"
    return f"several owners have a job {name!r}, name one with --owner: {', '.join(owners)}"


def about(session: Session, job: Job, owner: str) -> dict[str, Any]:
    """Return everything there is to tell about a job, as JSON and in words."""
    told: dict[str, Any] = {"job_id": job.job_id, "owner": owner, "status": job.status}
    expected = _expected(session, job)
    if job.status == JobStatus.READY:
        return told | _in_line(session, job, expected)
    lines = [_life(session, job)]
    if job.status in WAITING:
        lines += duration_line(expected)
    return told | {"lines": lines, "expected": _expected_to_json(expected)}


def _expected(session: Session, job: Job) -> Expected:
    known = durations.read_type(session, job.type, job.owner_id)
    estimated = job.estimated_seconds
    return known.expected(
        job.type,
        job.owner_id,
        None if estimated is None else timedelta(seconds=estimated),
        timedelta(seconds=job.timeout_seconds),
    )


# Jobs in line


def _in_line(session: Session, job: Job, expected: Expected) -> dict[str, Any]:
    scene, known = read_scene(session), estimates.read(session)
    snapshot, terms = scene.snapshot, _terms(scene, job)
    made = plan(snapshot)
    if any(each.id == job.id for each in snapshot.candidates):
        start = estimate(snapshot, [job.id], decided=made, experience=known).get(job.id)
        explained = replace(explain(snapshot, made, job.id), start=start)
    else:
        explained = _beyond(session, job, terms, snapshot, made, known)
    explained = replace(explained, expected=expected, rules=terms.applied)
    lines = to_lines(
        explained, now=snapshot.now, names=scene.names, capacity=snapshot.limits.capacity
    )
    return {"lines": lines, **_to_json(explained, scene.names)}


def _terms(scene: Scene, job: Job) -> JobTerms:
    rules, person = rules_of(scene.policy.rules), scene.people[job.owner_id]
    account = rules.account(
        person.username, person.group, person.weight, person.caps, scene.snapshot.now
    )
    return rules.job(account, job.type, job.tags)


def _beyond(
    session: Session, job: Job, terms: JobTerms, snapshot: Snapshot, made: Plan, known: Experience
) -> Explanation:
    """Explain a job behind those that a pass looks at."""
    job_class = terms.class_bounds.bound(JobClass(job.job_class))
    lines = {
        owner: _queued(owner, waiting, snapshot, made)
        for owner, waiting in lookup.lengths_of_lines(session)
    }
    curve = make_curve(
        lines.values(), clock=made.clock, starts=_rate(snapshot, made), experience=known
    )
    own, mine = lookup.own_ahead(session, job), lines[job.owner_id]
    position = position_on(curve, mine.tag, own, mine.weight)
    candidate = _candidate(job, job_class, terms)
    return replace(
        explain_beyond(snapshot, made, candidate, position),
        own_before=own,
        start=start_on(curve, position, job_class, snapshot.now),
    )


def _queued(owner_id: int, waiting: int, snapshot: Snapshot, made: Plan) -> Queued:
    account = next(
        (each for each in made.accounts if each.owner_id == owner_id), snapshot.accounts[owner_id]
    )
    newcomer = max(account.meter, made.clock.virtual_now)
    tag = newcomer if account.tag is None else account.tag
    return Queued(tag, effective_weight(account.weight), waiting, made.clock.mean_cost)


def _rate(snapshot: Snapshot, made: Plan) -> float | None:
    """Return how many jobs start in a second while those in view do."""
    waiting = [job_id for job_id in made.order if job_id in made.holds]
    found = forecast(snapshot, waiting, decided=made)
    places = {job_id: place for place, job_id in enumerate(waiting, start=1) if job_id in found}
    last = max(places, key=places.__getitem__, default=None)
    if last is None or found[last].wait <= timedelta(0):
        return None
    return places[last] / found[last].wait.total_seconds()


def _candidate(job: Job, job_class: JobClass, terms: JobTerms) -> Candidate:
    return Candidate(
        id=job.id,
        owner_id=job.owner_id,
        job_type=job.type,
        job_class=job_class,
        rank=job.rank or 0,
        cpu_units=float(job.cpu_units),
        memory_mb=job.memory_mb,
        expected=timedelta(0),
        waiting_since=job.ready_at or job.created_at,
        rate=terms.rate,
        allowance=terms.allowance,
    )


# Jobs that are not in line


def _life(session: Session, job: Job) -> str:
    """Say in a sentence where a job is that is not in line."""
    if job.status in FINISHED:
        return f"{_end(job)}, at {_instant(job.finished_at)}."
    match JobStatus(job.status):
        case JobStatus.SCHEDULED:
            return f"Its time has not come: it is due at {_instant(job.due_at)}."
        case JobStatus.BLOCKED:
            return _parents(lookup.open_parents(session, job))
        case JobStatus.RETRYING:
            last = f"; the last error was {_error(job)}" if job.error_type else ""
            return f"Its next attempt is due at {_instant(job.due_at)}{last}."
        case JobStatus.QUEUED:
            return f"Was admitted at {_instant(job.queued_at)}, and waits for a worker process."
        case _:
            since = _instant(job.started_at)
            return f"Runs since {since} on {job.worker}, as attempt {job.attempt}."


def _end(job: Job) -> str:
    match JobStatus(job.status):
        case JobStatus.FAILED:
            return f"Failed for good in attempt {job.attempt} ({_error(job)})"
        case JobStatus.CANCELLED:
            because = f" because of {job.reason_job_id}" if job.reason_job_id else ""
            return f"Was cancelled ({(job.reason or '').replace('_', ' ')}{because})"
        case _:
            return f"Ended well in attempt {job.attempt}"


def _parents(parents: list[lookup.Parent]) -> str:
    if not parents:
        return "The jobs it waited for are done; it is about to get in line."
    named = [f"{each.job_id} ({each.status})" for each in parents[:_PARENTS_NAMED]]
    more = len(parents) - len(named)
    return f"Waits for {', '.join(named)}{f' and {more} more' if more else ''}."


def _error(job: Job) -> str:
    return f"{job.error_type}: {job.error_message}"


def _instant(at: datetime | None) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S %Z") if at else "a time yet to be set"


# As JSON


def _to_json(explained: Explanation, names: Mapping[int, str]) -> dict[str, Any]:
    received, kept, start = explained.received, explained.reservation, explained.start
    allowance, missing = explained.allowance, explained.missing
    return {
        "code": explained.hold and explained.hold.code,
        "admitted_by": explained.grounds,
        "position": explained.position,
        "position_is_exact": explained.is_exact,
        "own_jobs_ahead": explained.own_before,
        "share": {
            "meter": received.meter,
            "virtual_now": received.virtual_now,
            "ahead_machine_seconds": received.ahead,
        },
        "express": allowance
        and {"left_machine_seconds": allowance.left, "is_open": allowance.is_open},
        "missing": {
            "cpu_units": missing.cpu_units,
            "memory_mb": missing.memory_mb,
            "slots": missing.slots,
        },
        "reservation": kept
        and {
            "job_id": names.get(kept.job_id),
            "promised_at": kept.promised_at.isoformat(),
        },
        "rules": list(explained.rules),
        "expected": explained.expected and _expected_to_json(explained.expected),
        "estimated_start": start
        and {
            "earliest": start.earliest.isoformat(),
            "latest": start.latest.isoformat(),
            "method": start.method,
        },
    }


def _expected_to_json(expected: Expected) -> dict[str, Any]:
    return {
        "seconds": expected.duration.total_seconds(),
        "spread": expected.spread,
        "source": expected.source,
    }
