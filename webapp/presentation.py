"""How values read on a page: durations, sizes, words for moves. Pure but for ``init_app``."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from flask import Flask

from scheduler.job_request import is_errand
from scheduler.states import CancelReason, JobClass, JobStatus, Outcome

_NOTHING = "\N{EN DASH}"

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_FINE_BELOW = 10
_GIGABYTE_MB = 1024

TREE_ITEMS = 200
"""How many members of one list or object a tree shows; the raw value stays a click away."""

TREE_OPEN_DEPTH = 2
_TREE_OPEN_ITEMS = 40

_REASONS: Mapping[str, str] = {
    CancelReason.BY_USER: "Cancelled by a person",
    CancelReason.DEPENDENCY_FAILED: "A job it waited for did not complete",
    CancelReason.DEADLINE_PASSED: "Its deadline to start passed",
    CancelReason.BY_ITSELF: "Cancelled by its own handler",
    CancelReason.REPLACED: "A later job of its schedule took its place",
}

_CLASS_BARS: Mapping[str, int] = {
    JobClass.CRITICAL: 4,
    JobClass.HIGH: 3,
    JobClass.NORMAL: 2,
    JobClass.LOW: 1,
}

_MOVES: Mapping[str, str] = {
    "submit": "Submitted",
    "release": "Free to start",
    "admit": "Admitted",
    "start": "Started",
    "succeed": "Completed",
    "fail": "Failed",
    "retry": "Attempt failed, will be retried",
    "requeue": "Given back by its worker",
    "request_cancel": "Asked to stop",
    "cancel": "Cancelled",
    "run_again": "Run again",
    "discard": "Discarded",
    "snooze": "Put off by itself",
    "change": "Changed",
    "postpone": "Put off",
}

_OUTCOMES: Mapping[str | None, str] = {
    None: "Running",
    Outcome.COMPLETED: "Completed",
    Outcome.FAILED: "Failed",
    Outcome.LOST: "Lost with its worker",
    Outcome.INTERRUPTED: "Interrupted, not counted",
    Outcome.SNOOZED: "Put off, not counted",
    Outcome.CANCELLED: "Cancelled",
}

_OUTCOME_TONES: Mapping[str | None, JobStatus] = {
    None: JobStatus.RUNNING,
    Outcome.COMPLETED: JobStatus.COMPLETED,
    Outcome.FAILED: JobStatus.FAILED,
    Outcome.LOST: JobStatus.FAILED,
    Outcome.INTERRUPTED: JobStatus.RETRYING,
    Outcome.SNOOZED: JobStatus.RETRYING,
    Outcome.CANCELLED: JobStatus.CANCELLED,
}


def duration(seconds: float | Decimal | None) -> str:
    """Say a length of time in at most two units, exact enough to compare rows."""
    if seconds is None:
        return _NOTHING
    value = max(float(seconds), 0.0)
    if value < _FINE_BELOW and not isinstance(seconds, int):
        return f"{value:.1f} s"
    if value < _MINUTE:
        return f"{int(value)} s"
    if value < _HOUR:
        return f"{int(value // _MINUTE)} min {int(value % _MINUTE):02d} s"
    if value < _DAY:
        return f"{int(value // _HOUR)} h {int(value % _HOUR // _MINUTE):02d} min"
    return f"{int(value // _DAY)} d {int(value % _DAY // _HOUR)} h"


def limit(seconds: float) -> str:
    """Say a length of time that somebody chose, without parts that are nothing."""
    return duration(seconds).removesuffix(" 00 s").removesuffix(" 00 min").replace(".0 s", " s")


def instant(value: str | datetime) -> datetime:
    """Read a time as the JSON side writes it."""
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)


def relative(value: str | datetime, now: datetime) -> str:
    """Say how long ago or how soon a time is, roughly."""
    seconds = (now - instant(value)).total_seconds()
    if abs(seconds) < _FINE_BELOW:
        return "just now" if seconds >= 0 else "in a moment"
    size = rough(abs(seconds))
    return f"{size} ago" if seconds > 0 else f"in {size}"


def rough(seconds: float) -> str:
    """Say a length of time in one unit."""
    if seconds < _MINUTE:
        return f"{int(seconds)} s"
    if seconds < _HOUR:
        return f"{int(seconds // _MINUTE)} min"
    if seconds < _DAY:
        return f"{int(seconds // _HOUR)} h"
    return f"{int(seconds // _DAY)} d"


def stamp(value: str | datetime) -> str:
    """Write a time for a machine, in the form the JSON side uses."""
    return instant(value).isoformat().replace("+00:00", "Z")


def clock_time(value: str | datetime) -> str:
    """Write the time of day; scripts turn it into the reader's zone."""
    return f"{instant(value):%H:%M:%S}"


def full_time(value: str | datetime) -> str:
    """Write a time in full; scripts turn it into the reader's zone."""
    return f"{instant(value):%Y-%m-%d %H:%M:%S} UTC"


def memory(megabytes: float | Decimal | None) -> str:
    """Say an amount of memory."""
    if megabytes is None:
        return _NOTHING
    value = float(megabytes)
    if value < _GIGABYTE_MB:
        return f"{value:.0f} MB"
    return f"{value / _GIGABYTE_MB:.1f}".removesuffix(".0") + " GB"


def number(value: float | Decimal | None) -> str:
    """Write a number without trailing zeros, thousands apart."""
    if value is None:
        return _NOTHING
    text = f"{float(value):,.3f}"
    return text.rstrip("0").rstrip(".")


def percent(fraction: float | None) -> str:
    """Say a fraction as whole percent; work that is not done never reads 100."""
    if fraction is None:
        return ""
    return f"{int(fraction * 100)}%"


def cancel_sentence(reason: str | None, other_job: str | None = None) -> str:
    """Say why a job is cancelled."""
    if reason == CancelReason.DEPENDENCY_FAILED and other_job:
        return f"{other_job}, which it waited for, did not complete"
    return _REASONS.get(reason or "", "Cancelled")


def class_bars(job_class: str) -> int:
    """Return how many of four bars a priority class fills."""
    return _CLASS_BARS.get(job_class, 0)


def move_title(verb: str) -> str:
    """Name a move for the timeline."""
    return _MOVES.get(verb, verb.replace("_", " ").capitalize())


def outcome_words(outcome: str | None) -> str:
    """Name how an attempt ended."""
    return _OUTCOMES.get(outcome, str(outcome))


def outcome_tone(outcome: str | None) -> str:
    """Return the status whose look an attempt's outcome borrows."""
    return _OUTCOME_TONES.get(outcome, JobStatus.CANCELLED)


def pretty_json(value: object) -> str:
    """Write JSON for a person."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def json_word(value: object) -> str:
    """Write one JSON scalar as JSON does."""
    return json.dumps(value, ensure_ascii=False, default=str)


@dataclass(frozen=True, slots=True)
class Branch:
    """One member of a list or an object in a tree."""

    key: str
    value: Any


def is_branching(value: object) -> bool:
    """Tell whether a tree can unfold *value*."""
    return isinstance(value, dict | list) and bool(value)


def branches(value: Mapping[str, Any] | Sequence[Any]) -> Iterator[Branch]:
    """Yield the first members of *value*, at most ``TREE_ITEMS``."""
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
    for place, (key, member) in enumerate(pairs):
        if place == TREE_ITEMS:
            return
        yield Branch(str(key), member)


def is_open(value: Mapping[str, Any] | Sequence[Any], depth: int) -> bool:
    """Tell whether a tree shows the members of *value* unasked."""
    return depth < TREE_OPEN_DEPTH and len(value) <= _TREE_OPEN_ITEMS


def tree_kind(value: object) -> str:
    """Return which colour a scalar takes in a tree."""
    if isinstance(value, str):
        return "string"
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return "number"
    return "word"


def curl(base_url: str, submission: Mapping[str, Any]) -> str:
    """Write the command that submits *submission*; the token stays a variable."""
    body = json.dumps(submission, ensure_ascii=False)
    return (
        f"curl {shlex.quote(base_url.rstrip('/') + '/jobs')} \\\n"
        '  -H "Authorization: Bearer $FAIRQ_TOKEN" \\\n'
        "  -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(body)}"
    )


def init_app(app: Flask) -> None:
    """Give the templates their filters."""
    app.add_template_filter(duration)
    app.add_template_filter(limit)
    app.add_template_filter(relative)
    app.add_template_filter(stamp)
    app.add_template_filter(full_time)
    app.add_template_filter(clock_time, "clock")
    app.add_template_filter(memory)
    app.add_template_filter(number)
    app.add_template_filter(percent)
    app.add_template_filter(pretty_json)
    app.add_template_filter(json_word)
    app.add_template_filter(branches)
    app.add_template_filter(tree_kind)
    app.add_template_filter(class_bars)
    app.add_template_filter(move_title)
    app.add_template_filter(outcome_words)
    app.add_template_filter(outcome_tone)
    app.add_template_test(is_branching, "branching")
    app.add_template_test(is_errand, "errand")
    app.jinja_env.globals.update(
        is_open=is_open, cancel_sentence=cancel_sentence, TREE_ITEMS=TREE_ITEMS
    )
