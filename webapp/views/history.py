"""What a job's page tells of its past: every hop with its time, attempts with their errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from scheduler.models import Attempt, JobEvent
from scheduler.states import JobStatus, Outcome
from webapp import presentation, serialise


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of a job's timeline; *gap* is the seconds since the step before.

    *next_at* is when the job goes on by itself.
    """

    seq: int
    status: str
    title: str
    more: str
    next_at: datetime | None
    at: datetime
    gap: float | None


def timeline(moves: Sequence[JobEvent]) -> list[Hop]:
    """Return the steps of a job, first to last."""
    before = [None, *(move.at for move in moves)]
    return [_hop(move, earlier) for move, earlier in zip(moves, before, strict=False)]


def attempt(one: Attempt, now: datetime) -> dict[str, Any]:
    """Return one try as the JSON side answers it, with how long it took."""
    took = (one.finished_at or now) - one.started_at
    return serialise.attempt_to_json(one) | {"elapsed_seconds": max(took.total_seconds(), 0.0)}


def average_cpu_units(tries: Sequence[Attempt]) -> float | None:
    """Return how many processors the last measured attempt kept busy."""
    for one in reversed(tries):
        if one.cpu_seconds is not None and one.finished_at is not None:
            seconds = (one.finished_at - one.started_at).total_seconds()
            return round(one.cpu_seconds / seconds, 2) if seconds > 0 else None
    return None


def peak_memory_mb(tries: Sequence[Attempt]) -> float | None:
    """Return the most memory any attempt took beyond what its process held before."""
    return max(
        (one.peak_memory_mb for one in tries if one.peak_memory_mb is not None), default=None
    )


def was_put_off(tries: Sequence[Attempt]) -> bool:
    """Tell whether the last attempt was put off by its own handler."""
    return bool(tries) and tries[-1].outcome == Outcome.SNOOZED


def submission_of(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return what to submit to get another job like *job*, as a page describes it."""
    kept = ("description", "tags", "depends_on", "estimated_seconds", "callback_url")
    return {
        "type": job["type"],
        "payload": job["payload"],
        "priority": job["priority_level"],
        "resource_requirements": job["resource_requirements"],
        "timeout_seconds": job["timeout_seconds"],
        "retry_config": job["retry_config"],
        "executor": job["executor"],
        **{name: job[name] for name in kept if job[name]},
    }


def _hop(move: JobEvent, earlier: datetime | None) -> Hop:
    gap = None if earlier is None else (move.at - earlier).total_seconds()
    data = move.data or {}
    due = presentation.instant(data["due_at"]) if data.get("due_at") else None
    return Hop(move.seq, move.status, _title(move), _more(move, data), due, move.at, gap)


def _title(move: JobEvent) -> str:
    if move.verb == "submit" and move.status != JobStatus.READY:
        return f"{presentation.move_title(move.verb)}, {move.status}"
    return presentation.move_title(move.verb)


def _more(move: JobEvent, data: Mapping[str, Any]) -> str:
    if "worker" in data:
        return f"Attempt {move.attempt} on {data['worker']}"
    if data.get("error"):
        return str(data["error"])
    if "reason" in data:
        return presentation.cancel_sentence(data["reason"], data.get("root"))
    return ""
