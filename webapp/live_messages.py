"""What browsers are told, as values. Pure: no sockets, no database, no clock."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from scheduler.states import DISCARD, CancelReason, JobStatus, is_final

Message = dict[str, Any]
JobKey = tuple[int, str]

PER_SECOND = 4
"""How often at most a change of one job is told."""

_INTERVAL: Final = 1 / PER_SECOND

_TITLES: Mapping[JobStatus, str] = {
    JobStatus.COMPLETED: "completed",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "was cancelled",
}

_ASKED_FOR = frozenset({CancelReason.BY_USER, CancelReason.REPLACED})


class Coalescer:
    """Holds back changes of jobs that were told a moment ago, so that the latest of each wins.

    Fields of changes held back add up; a finished job is never held back. Times are seconds of
    one steady clock.
    """

    def __init__(self) -> None:
        self._told: dict[JobKey, float] = {}
        self._held: dict[JobKey, Message] = {}

    def offer(self, key: JobKey, change: Message, *, now: float) -> Message | None:
        """Return what to tell now, or None if it is held back."""
        merged = _merge(self._held.pop(key, None), change)
        if _ends(merged):
            self._told.pop(key, None)
            return merged
        if now - self._told.get(key, float("-inf")) >= _INTERVAL:
            self._told[key] = now
            return merged
        self._held[key] = merged
        return None

    def due(self, *, now: float) -> list[tuple[JobKey, Message]]:
        """Return what was held back long enough, and forget what is old."""
        ripe = [key for key in self._held if now - self._told[key] >= _INTERVAL]
        out = [(key, self._held.pop(key)) for key in ripe]
        self._told |= dict.fromkeys(ripe, now)
        quiet = [
            key for key, at in self._told.items() if now - at > _INTERVAL and key not in self._held
        ]
        for key in quiet:
            del self._told[key]
        return out


def of_move(move: Mapping[str, Any], owner: str) -> Message:
    """Say what a move changed."""
    data = move["data"] or {}
    change = {
        "job_id": move["job_id"],
        "owner": owner,
        "seq": move["seq"],
        "verb": move["verb"],
        "status": move["status"],
        "attempt": move["attempt"],
        "at": move["at"],
    }
    return change | {name: data[name] for name in ("worker", "reason", "error") if name in data}


def of_progress(message: Mapping[str, Any], owner: str) -> Message:
    """Say how far a running job is."""
    return {
        "job_id": message["job_id"],
        "owner": owner,
        "attempt": message["attempt"],
        "progress": {"fraction": message["fraction"], "message": message["message"]},
    }


def of_log(message: Mapping[str, Any], owner: str) -> Message:
    """Say what a job wrote."""
    return {
        "job_id": message["job_id"],
        "owner": owner,
        "attempt": message["attempt"],
        "lines": message["lines"],
    }


def notification(move: Mapping[str, Any]) -> Message | None:
    """Tell the owner that a job ended, unless that was asked for: by a person, or by a schedule."""
    status = JobStatus(move["status"])
    data = move["data"] or {}
    is_known = data.get("reason") in _ASKED_FOR or move["verb"] == DISCARD
    if status not in _TITLES or is_known:
        return None
    return {
        "job_id": move["job_id"],
        "seq": move["seq"],
        "status": status,
        "title": f"{move['job_id']} {_TITLES[status]}",
        "message": _explanation(status, data),
        "at": move["at"],
    }


def replay(moves: Sequence[Mapping[str, Any]], owners: Mapping[int, str]) -> list[Message]:
    """Say what a client missed: the last change of each job, in the order they happened."""
    latest = {(move["owner_id"], move["job_id"]): move for move in moves}
    ordered = sorted(latest.values(), key=lambda move: int(move["seq"]))
    return [of_move(move, owners[move["owner_id"]]) for move in ordered]


def _explanation(status: JobStatus, data: Mapping[str, Any]) -> str:
    if status is JobStatus.FAILED:
        return str(data.get("error") or "")
    if data.get("reason") == CancelReason.DEPENDENCY_FAILED:
        return "A job it waited for did not complete."
    if data.get("reason") == CancelReason.DEADLINE_PASSED:
        return "Its deadline to start passed."
    return ""


def _merge(held: Message | None, change: Message) -> Message:
    """Put the newer of two changes over the other. The progress of an attempt ends with it.

    Messages of different processes overtake each other: a worker may tell that it started before
    the scheduler tells that it admitted.
    """
    if held is None:
        return change
    older, newer = (
        (change, held)
        if change.get("seq", held.get("seq", 0)) < held.get("seq", 0)
        else (held, change)
    )
    if older.get("attempt") != newer.get("attempt"):
        older = {name: value for name, value in older.items() if name != "progress"}
    return older | newer


def _ends(change: Message) -> bool:
    return "status" in change and is_final(JobStatus(change["status"]))
