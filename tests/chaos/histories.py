"""Made-up histories: one that keeps every promise, to be spoilt in one place by each test."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from scheduler.states import Condition, JobStatus, Outcome
from tests.chaos.record import Bounds, Edge, Event, Hit, Job, Record, Struck
from tests.chaos.schedule import Kind, Strike

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
S = JobStatus

STATUSES = {
    "submit": S.READY,
    "release": S.READY,
    "requeue": S.READY,
    "admit": S.QUEUED,
    "start": S.RUNNING,
    "request_cancel": S.RUNNING,
    "succeed": S.COMPLETED,
    "retry": S.RETRYING,
    "fail": S.FAILED,
    "cancel": S.CANCELLED,
}
OUTCOMES = {
    "succeed": Outcome.COMPLETED,
    "retry": Outcome.LOST,
    "fail": Outcome.FAILED,
    "requeue": Outcome.INTERRUPTED,
    "cancel": Outcome.CANCELLED,
}
AFTER_A_LOSS = ("retry", "release", "admit", "start", "succeed")


def instant(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def event(seq: int, job: int, verb: str, attempt: int, **changes: Any) -> Event:
    """Make an event that happens at the second of its number."""
    made = Event(
        seq=seq,
        job=job,
        verb=verb,
        status=STATUSES[verb],
        attempt=attempt,
        at=instant(seq),
        epoch=1 if verb == "admit" else None,
        worker="worker1@host" if verb == "start" else None,
    )
    return replace(made, **changes)


def life(job: int, *verbs: str, first: int = 1) -> list[Event]:
    """Make the events of one job, with numbers from *first* on; attempts count up."""
    events, attempt = [], 0
    for seq, verb in enumerate(("submit", *verbs), start=first):
        attempt += verb == "admit"
        events.append(event(seq, job, verb, attempt))
    return events


def record(*lives: Sequence[Event], **changes: Any) -> Record:
    """Make what is left of these lives if all else is as it should be."""
    events = sorted((one for each in lives for one in each), key=lambda one: one.seq)
    last = {one.job: one for one in events}
    jobs = {
        job: Job(
            id=job,
            owner="ada",
            name=f"job-{job}",
            status=one.status,
            attempt=one.attempt,
            cpu_units=1.0,
            memory_mb=100,
            records=True,
        )
        for job, one in last.items()
    }
    started = {one.key for one in events if one.verb == "start"}
    made = Record(
        jobs=jobs,
        events=events,
        outcomes={
            one.key: OUTCOMES[one.verb]
            for one in events
            if one.verb in OUTCOMES and one.key in started
        },
        edges=[],
        effects={one.key: 1 for one in events if one.verb == "succeed"},
        left={"active": 0, "ready": 0},
        bounds=Bounds(2.0, 200),
        accepted=frozenset((job.owner, job.name) for job in jobs.values()),
    )
    return replace(made, **changes)


def whole() -> Record:
    """Make the record of a run with a loss, a failure, a dependency and two cancelled jobs."""
    return record(
        life(1, "admit", "start", *AFTER_A_LOSS),
        life(2, "admit", "start", "fail", first=11),
        life(3, "admit", "start", "request_cancel", "cancel", first=21),
        life(4, "cancel", first=31),
        life(5, "admit", "requeue", "admit", "start", "succeed", first=41),
        edges=[Edge(child=5, parent=1, condition=Condition.COMPLETED)],
        cancelled=frozenset({("ada", "job-3"), ("ada", "job-4")}),
    )


def struck(kind: Kind, began: float, lifted: float | None = None, **hit: Any) -> Struck:
    """Make a strike that has happened."""
    planned = Strike(began, kind, 0.0, 0)
    return Struck(planned, Hit(**hit), instant(began), instant(lifted or began))
