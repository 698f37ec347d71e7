"""Which promises a run has broken, by what is recorded and by nothing a process says. Pure.

Each rule is a function that tells, in sentences, what breaks it. The order of events is that of
their numbers: a job's are written under its lock, and whoever reserves has seen what was let go.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from scheduler.states import FINISHED, MOVES, Condition, JobStatus, Outcome
from tests.chaos.record import Attempt, Event, Record

S = JobStatus

_SLACK = 1e-6
_BEGINNINGS = frozenset({S.SCHEDULED, S.BLOCKED, S.READY})
_OUTCOMES: Mapping[str, frozenset[Outcome]] = MappingProxyType(
    {
        "succeed": frozenset({Outcome.COMPLETED}),
        "fail": frozenset({Outcome.FAILED, Outcome.LOST}),
        "retry": frozenset({Outcome.FAILED, Outcome.LOST}),
        "snooze": frozenset({Outcome.SNOOZED}),
        "requeue": frozenset({Outcome.INTERRUPTED}),
        "cancel": frozenset({Outcome.CANCELLED}),
    }
)
_ENOUGH: Mapping[Condition, frozenset[JobStatus]] = MappingProxyType(
    {
        Condition.COMPLETED: frozenset({S.COMPLETED}),
        Condition.FAILED: frozenset({S.FAILED}),
        Condition.FINISHED: FINISHED,
    }
)


@dataclass(frozen=True, slots=True)
class Breach:
    """A rule that was broken, and how."""

    rule: str
    told: str


def audit(record: Record) -> list[Breach]:
    """Return everything that breaks a rule."""
    return [Breach(rule, told) for rule, check in RULES.items() for told in check(record)]


def _every_job_ends_once(record: Record) -> Iterator[str]:
    for job in record.jobs.values():
        ends = [event for event in record.by_job.get(job.id, ()) if event.status in FINISHED]
        if job.status not in FINISHED:
            yield f"job {job.name} is {job.status}"
        elif len(ends) != 1 or ends[0].status is not job.status:
            yield f"job {job.name} is {job.status}, and ended as {[one.status for one in ends]}"


def _moves_are_legal(record: Record) -> Iterator[str]:
    for job, events in record.by_job.items():
        before: JobStatus | None = None
        for event in events:
            if not _is_legal(before, event):
                yield f"job {job} went from {before} to {event.status} by {event.verb}"
            before = event.status


def _is_legal(before: JobStatus | None, event: Event) -> bool:
    if before is None:
        return event.verb == "submit" and event.status in _BEGINNINGS
    if event.verb in {"request_cancel", "change"}:
        return event.status is before
    return event.status in MOVES[before]


def _one_attempt_is_live(record: Record) -> Iterator[str]:
    for events in record.by_job.values():
        live: int | None = None
        admitted, started = 0, set()
        for event in events:
            if event.verb == "admit":
                if live is not None or event.attempt != admitted + 1:
                    yield f"{event.key} was admitted after {admitted}, while {live} was live"
                admitted = event.attempt
            elif event.verb == "start":
                if live is not None or event.attempt != admitted or event.attempt in started:
                    yield f"{event.key} began while {live} was live, of {admitted} admitted"
                live = event.attempt
                started.add(event.attempt)
            elif event.status is not S.RUNNING:
                live = None


def _outcomes_are_of_the_live_attempt(record: Record) -> Iterator[str]:
    ended: dict[Attempt, str] = {}
    for events in record.by_job.values():
        live: int | None = None
        for event in events:
            if event.verb == "start":
                live = event.attempt
            elif live is not None and event.status is not S.RUNNING:
                if event.attempt != live:
                    yield f"{event.verb} of {event.key} was recorded while {live} was live"
                ended[event.key] = event.verb
                live = None
            elif event.verb in {"succeed", "fail", "retry", "snooze"}:
                yield f"{event.verb} of {event.key} was recorded while nothing was live"
    yield from _kept_otherwise(record.outcomes, ended)


def _kept_otherwise(
    outcomes: Mapping[Attempt, Outcome | None], ended: Mapping[Attempt, str]
) -> Iterator[str]:
    """Tell where an attempt's own row says something else than its job's history."""
    for attempt in outcomes.keys() | ended.keys():
        verb, outcome = ended.get(attempt, "nothing"), outcomes.get(attempt)
        if outcome not in _OUTCOMES.get(verb, ()):
            yield f"attempt {attempt} ended by {verb}, and is kept as {outcome}"


def _reserved_is_bounded(record: Record) -> Iterator[str]:
    held: dict[int, tuple[float, int]] = {}
    for event in record.events:
        if event.verb == "admit":
            job = record.jobs[event.job]
            held[event.job] = (job.cpu_units, job.memory_mb)
            yield from _above(record, held, event)
        elif event.status not in {S.QUEUED, S.RUNNING}:
            held.pop(event.job, None)
    if held:
        yield f"in the end {sorted(held)} hold something"


def _above(record: Record, held: Mapping[int, tuple[float, int]], event: Event) -> Iterator[str]:
    cpu_units = sum(each[0] for each in held.values())
    memory_mb = sum(each[1] for each in held.values())
    if cpu_units > record.bounds.cpu_units + _SLACK or memory_mb > record.bounds.memory_mb:
        yield f"event {event.seq}: {cpu_units:g} CPU units and {memory_mb} MB are reserved"


def _effects_are_once(record: Record) -> Iterator[str]:
    started = {event.key for event in record.events if event.verb == "start"}
    for event in record.events:
        does = event.verb == "succeed" and record.jobs[event.job].records
        if does and event.key not in record.effects:
            yield f"{event.key} succeeded, and did nothing"
    for attempt in record.effects.keys() - started:
        yield f"{attempt} did something, and never began"


def _answers_are_kept(record: Record) -> Iterator[str]:
    for name in sorted(record.accepted - record.by_name.keys()):
        yield f"{name} was answered 2xx, and is not there"
    for name in sorted(record.cancelled & record.by_name.keys()):
        verbs = {event.verb for event in record.by_job[record.by_name[name].id]}
        if not verbs & {"cancel", "request_cancel"}:
            yield f"{name} was cancelled with a 2xx, and nothing says so"


def _parents_come_first(record: Record) -> Iterator[str]:
    reached: dict[int, set[JobStatus]] = {}
    waits: dict[int, list[tuple[int, Condition]]] = {}
    for edge in record.edges:
        waits.setdefault(edge.child, []).append((edge.parent, edge.condition))
    for event in record.events:
        reached.setdefault(event.job, set()).add(event.status)
        for parent, condition in waits.get(event.job, ()) if event.verb == "admit" else ():
            if not _ENOUGH[condition] & reached.get(parent, set()):
                yield f"{event.key} was admitted before {parent} was {condition}"


def _leaders_follow_each_other(record: Record) -> Iterator[str]:
    epoch = 0
    for event in record.events:
        if event.epoch is not None:
            if event.epoch < epoch:
                yield f"event {event.seq}: epoch {event.epoch} admitted after {epoch}"
            epoch = max(epoch, event.epoch)


def _nothing_is_left(record: Record) -> Iterator[str]:
    for where, count in record.left.items():
        if count:
            yield f"{count} {where}"


def _nothing_else_happened(record: Record) -> Sequence[str]:
    return record.incidents


RULES: Mapping[str, Callable[[Record], Iterator[str] | Sequence[str]]] = MappingProxyType(
    {
        "every job reaches one final state": _every_job_ends_once,
        "every move is in the table of moves": _moves_are_legal,
        "at most one attempt of a job is live": _one_attempt_is_live,
        "no outcome is recorded from a lost attempt": _outcomes_are_of_the_live_attempt,
        "what is reserved is within the capacity, and returns to zero": _reserved_is_bounded,
        "what a successful job does is done once": _effects_are_once,
        "nobody saw a 2xx for what is not there": _answers_are_kept,
        "no job is admitted before what it waits for": _parents_come_first,
        "no leader admits after its successor": _leaders_follow_each_other,
        "nothing is left over": _nothing_is_left,
        "processes end only when killed, and answers are never wrong": _nothing_else_happened,
    }
)
"""What is promised, and what checks it."""
