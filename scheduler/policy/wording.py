"""An explanation in words: one fact a line, and only those that apply. Pure."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from math import exp

from scheduler.policy.admission import is_hard
from scheduler.policy.durations import Expected, Source
from scheduler.policy.experience import Estimate
from scheduler.policy.explanation import Allowance, Explanation, Received
from scheduler.policy.reasons import sentence
from scheduler.snapshot import Resources

_Z = 1.28  # four of five draws from a normal distribution lie within so many deviations


def to_lines(
    explained: Explanation,
    *,
    now: datetime,
    names: Mapping[int, str],
    capacity: Resources | None,
) -> list[str]:
    """Tell a person, one fact a line and only those that apply; *names* are those of jobs."""
    cpu_units = capacity.cpu_units if capacity is not None else 0.0
    return [
        *_why(explained, names),
        *_place(explained),
        *_share(explained.received, cpu_units),
        *_express(explained.allowance, cpu_units),
        *_lack(explained.missing),
        *_kept(explained, names, now),
        *([f"Rules that apply: {', '.join(explained.rules)}."] if explained.rules else []),
        *duration_line(explained.expected),
        *_start(explained.start, now),
    ]


def _why(explained: Explanation, names: Mapping[int, str]) -> Iterator[str]:
    hold = explained.hold
    if hold is None:
        yield f"Goes now ({explained.grounds})."
    elif explained.is_exact:
        kept_for = "another job" if hold.kept_for is None else names.get(hold.kept_for)
        yield sentence(hold, kept_for=kept_for or "another job")
    else:
        yield f"Waits for its turn: about {_count(hold.before, 'job')} go first."


def _place(explained: Explanation) -> Iterator[str]:
    if explained.position == 0:
        return
    about = "" if explained.is_exact else "about "
    own = f"; {_count(explained.own_before, 'job')} of the same owner ahead"
    yield f"Position: {about}{explained.position}{own if explained.own_before else ''}."


def _share(received: Received, cpu_units: float) -> Iterator[str]:
    ahead = _machine_seconds(abs(received.ahead), cpu_units)
    scale = f"meter {received.meter:.3f}, virtual now {received.virtual_now:.3f}"
    if received.ahead > 0:
        yield f"The owner is over its share by {ahead} ({scale})."
    else:
        yield f"The owner is within its share, and owed {ahead} ({scale})."


def _express(allowance: Allowance | None, cpu_units: float) -> Iterator[str]:
    if allowance is None:
        return
    if allowance.left <= 0:
        yield "The owner's express allowance is used up; it refills as time passes."
        return
    closed = "" if allowance.is_open else ", but everybody's express work has closed the lane"
    yield f"Express allowance left: {_machine_seconds(allowance.left, cpu_units)}{closed}."


def _lack(lack: Resources) -> Iterator[str]:
    parts = [
        _count(lack.cpu_units, "CPU unit") if lack.cpu_units else "",
        f"{lack.memory_mb} MB of memory" if lack.memory_mb else "",
        _count(lack.slots, "worker process", "worker processes") if lack.slots else "",
    ]
    if any(parts):
        yield f"Missing: {', '.join(part for part in parts if part)}."


def _kept(explained: Explanation, names: Mapping[int, str], now: datetime) -> Iterator[str]:
    kept = explained.reservation
    if kept is None:
        return
    mine = kept.job_id == explained.job_id
    whom = "it" if mine else names.get(kept.job_id, "another job")
    firm = "firmly " if is_hard(kept, now) else ""
    promised = _ahead(kept.promised_at, now)
    yield f"Room is {firm}kept for {whom}, which was promised a start {promised}."


def duration_line(expected: Expected | None) -> Iterator[str]:
    """Tell how long a job is expected to take, if anybody knows."""
    if expected is None:
        return
    middle = expected.duration.total_seconds()
    factor = exp(_Z * expected.spread)
    spread = f"mostly {_seconds(middle / factor)} to {_seconds(middle * factor)}"
    yield f"Expected to take {_seconds(middle)}, {spread}: {_SOURCES[expected.source]}."


_SOURCES = {
    Source.OWN: "learned from the owner's jobs of this type",
    Source.TYPE: "learned from jobs of this type",
    Source.ESTIMATE: "estimated by its submitter, as nothing was learned yet",
    Source.DEFAULT: "a guess, as nothing is known yet",
}


def _start(start: Estimate | None, now: datetime) -> Iterator[str]:
    if start is not None:
        early, late = (_ahead(at, now) for at in (start.earliest, start.latest))
        yield f"Probably starts between {early} and {late} (by {start.method})."


def _machine_seconds(amount: float, cpu_units: float) -> str:
    cpu = f", {amount * cpu_units:.3g} CPU-seconds" if cpu_units else ""
    return f"{amount:.3g} machine-seconds{cpu}"


def _ahead(at: datetime, now: datetime) -> str:
    seconds = (at - now).total_seconds()
    return f"{_seconds(seconds)} from now" if seconds > 0 else "now"


def _seconds(seconds: float) -> str:
    for unit, length in _UNITS:
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.2g} s"


_UNITS = (("h", 3600.0), ("min", 60.0), ("s", 1.0))


def _count(amount: float, unit: str, units: str | None = None) -> str:
    return f"1 {unit}" if amount == 1 else f"{amount:.12g} {units or unit + 's'}"
