"""The states of a job and the only table of moves between them. Pure."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class JobStatus(StrEnum):
    """Where a job is in its life; every job is in exactly one of these."""

    SCHEDULED = "scheduled"  # its time has not come
    BLOCKED = "blocked"  # waits for other jobs
    READY = "ready"  # waits for its turn
    QUEUED = "queued"  # admitted, sent to Celery or offered to pull workers
    RUNNING = "running"  # claimed by a worker
    RETRYING = "retrying"  # waits for its backoff
    COMPLETED = "completed"
    FAILED = "failed"  # all attempts used, or not retryable
    CANCELLED = "cancelled"  # by a person, a dependency or a deadline


_S = JobStatus

MOVES: Mapping[JobStatus, frozenset[JobStatus]] = MappingProxyType(
    {
        _S.SCHEDULED: frozenset({_S.READY, _S.BLOCKED, _S.CANCELLED}),
        _S.BLOCKED: frozenset({_S.READY, _S.SCHEDULED, _S.CANCELLED}),
        _S.READY: frozenset({_S.QUEUED, _S.SCHEDULED, _S.CANCELLED}),
        _S.QUEUED: frozenset({_S.RUNNING, _S.READY, _S.CANCELLED}),
        _S.RUNNING: frozenset({_S.COMPLETED, _S.RETRYING, _S.FAILED, _S.READY, _S.CANCELLED}),
        _S.RETRYING: frozenset({_S.READY, _S.CANCELLED}),
        _S.COMPLETED: frozenset(),
        _S.FAILED: frozenset({_S.READY, _S.BLOCKED}),
        _S.CANCELLED: frozenset({_S.READY, _S.BLOCKED}),
    }
)
"""Allowed next states. Documents and database tests are checked against this table."""

DISCARD = "discard"
"""The verb that ends nothing, though it tells a final status: the job had failed before."""

WAITING = frozenset({_S.SCHEDULED, _S.BLOCKED, _S.READY, _S.RETRYING})
ACTIVE = frozenset({_S.QUEUED, _S.RUNNING})
FINISHED = frozenset({_S.COMPLETED, _S.FAILED, _S.CANCELLED})
UNFINISHED = WAITING | ACTIVE
PENDING = frozenset({_S.SCHEDULED, _S.BLOCKED, _S.READY, _S.QUEUED})

GROUPS: Mapping[str, frozenset[JobStatus]] = MappingProxyType(
    {"pending": PENDING, "active": ACTIVE, "finished": FINISHED}
)
"""Words a status filter takes beside the nine states."""


def sources(target: JobStatus) -> frozenset[JobStatus]:
    """Return the states from which *target* may be reached."""
    return frozenset(source for source, targets in MOVES.items() if target in targets)


def is_final(status: JobStatus) -> bool:
    """Tell whether a job in *status* has finished."""
    return status in FINISHED


class JobClass(StrEnum):
    """A job's priority class; also the name of its Celery queue. In order of urgency."""

    CRITICAL = "critical"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


DEFAULT_LEVEL: Mapping[JobClass, int] = MappingProxyType(
    {JobClass.CRITICAL: 0, JobClass.HIGH: 2, JobClass.NORMAL: 5, JobClass.LOW: 8}
)
"""The level (0 to 10, smaller first) of a job submitted with a class by name."""

HIGHEST_LEVEL, LOWEST_LEVEL = 0, 10
_FIRST_LEVEL_BELOW = ((1, JobClass.CRITICAL), (4, JobClass.HIGH), (7, JobClass.NORMAL))


def class_of(level: int) -> JobClass:
    """Return the class of a priority level: 0 critical, 1-3 high, 4-6 normal, 7-10 low."""
    for bound, job_class in _FIRST_LEVEL_BELOW:
        if level < bound:
            return job_class
    return JobClass.LOW


class FeedKind(StrEnum):
    """What the leader has yet to take in."""

    LINKED = "linked"  # a job has new edges
    LINED = "lined"  # an owner's line has changed
    ENDED = "ended"  # a job is finished
    RELEASED = "released"  # a job gave back what it held, and is not finished
    REVIVED = "revived"  # a job runs again, and what was cancelled because of it may follow
    TERMS = "terms"  # a weight, a cap, a group or a pause has changed


class CancelReason(StrEnum):
    """Why a job is cancelled."""

    BY_USER = "cancelled_by_user"
    DEPENDENCY_FAILED = "dependency_failed"
    DEADLINE_PASSED = "deadline_passed"
    BY_ITSELF = "cancelled_by_itself"  # its handler found nothing to do
    REPLACED = "replaced_by_schedule"  # a later tick of its schedule took its place


class Overlap(StrEnum):
    """What a tick does while an earlier job of its schedule is unfinished."""

    SKIP = "skip"  # makes no job
    QUEUE = "queue"  # makes its job all the same
    REPLACE = "replace"  # cancels the unfinished ones


class CatchUp(StrEnum):
    """Which of the ticks that were missed make jobs."""

    NONE = "none"
    LATEST = "latest"
    ALL = "all"


class Condition(StrEnum):
    """When a dependency counts as met."""

    COMPLETED = "completed"
    FINISHED = "finished"
    FAILED = "failed"


class Executor(StrEnum):
    """Who runs a job."""

    CELERY = "celery"
    PULL = "pull"


class Outcome(StrEnum):
    """How an attempt ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    LOST = "lost"  # its worker went silent or its process died
    INTERRUPTED = "interrupted"  # given back by a drain; not counted
    SNOOZED = "snoozed"  # put off by its own handler; not counted
    CANCELLED = "cancelled"


class BulkAction(StrEnum):
    """What may be done to many jobs at a time."""

    CANCEL = "cancel"
    RETRY = "retry"
    PRIORITISE = "prioritise"
    TAG = "tag"


class CallbackState(StrEnum):
    """What became of a callback."""

    PENDING = "pending"  # is to be sent, or sent again
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


class Role(StrEnum):
    """What an account may do; each includes the ones before it."""

    VIEWER = "viewer"
    USER = "user"
    OPERATOR = "operator"
    ADMIN = "admin"


class Scope(StrEnum):
    """What a token may be used for."""

    READ = "read"
    SUBMIT = "submit"
    WORK = "work"
    ADMIN = "admin"
