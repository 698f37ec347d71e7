"""What jobs, letters, schedules, workers and figures look like. Nothing is asked here."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fairq.cli.terminal import plain
from fairq.models import (
    CANCELLED,
    COMPLETED,
    FAILED,
    RETRYING,
    RUNNING,
    Attempt,
    DeadLetter,
    DeadLetterGroup,
    Dependency,
    Job,
    JobType,
    LogLine,
    Offer,
    Schedule,
    Stats,
    Worker,
)

_STYLES: Mapping[str, str] = {
    COMPLETED: "green",
    FAILED: "red",
    CANCELLED: "dim",
    RUNNING: "cyan",
    RETRYING: "yellow",
}
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_BAR_WIDTH = 24


# Jobs


def jobs_table(jobs: Iterable[Job]) -> Table:
    """Show jobs, one a line."""
    table = _table("JOB", "STATUS", "TYPE", "OWNER", "CLASS", "TIME", "ABOUT")
    for job in jobs:
        about = detail(job)
        table.add_row(
            *map(plain, (job.job_id,)),
            status(job.status),
            *map(plain, (job.type, job.owner, job.priority or "", _time(job), about)),
        )
    return table


def job_view(job: Job, attempts: Sequence[Attempt]) -> RenderableType:
    """Show everything about a job."""
    facts: dict[str, Text | str | None] = {
        "job": job.job_id,
        "type": job.type,
        "status": status(job.status),
        "why": detail(job),
        "starts": _estimate(job),
        "owner": job.owner,
        "class": _class(job),
        "description": job.description,
        "tags": ", ".join(job.tags),
        "takes": _takes(job),
        "waits for": ", ".join(map(_parent, job.depends_on)),
        "submitted": clock(job.created_at),
        "not before": clock(job.run_at),
        "started": clock(job.started_at),
        "finished": clock(job.finished_at),
        "waited": duration(job.waited_seconds),
        "ran": duration(job.elapsed_seconds),
        "worker": job.worker,
        "schedule": job.schedule,
        "payload": _json(job.payload),
        "result": _json(job.result) if job.is_completed else None,
    }
    return Group(facts_table(facts), *([attempts_table(attempts)] if attempts else []))


def attempts_table(attempts: Iterable[Attempt]) -> Table:
    """Show every try at a job."""
    table = _table("ATTEMPT", "OUTCOME", "WORKER", "STARTED", "ENDED", "PEAK MB", "ERROR")
    for one in attempts:
        error = "" if one.error is None else f"{one.error.type}: {one.error.message or ''}"
        peak = "" if one.peak_memory_mb is None else f"{one.peak_memory_mb:.0f}"
        ends = (clock(one.started_at), clock(one.finished_at))
        shown = (one.attempt, one.outcome or RUNNING, one.worker or "", *ends, peak, error)
        table.add_row(*map(plain, shown))
    return table


def detail(job: Job) -> str:
    """Say in a few words why a job stands where it does."""
    if job.waiting is not None:
        place = f"number {job.position_in_queue} in line: " if job.position_in_queue else ""
        return place + job.waiting.message
    if job.status == FAILED and job.error is not None:
        return f"{job.error.type}: {job.error.message or ''}"
    if job.status == CANCELLED:
        return (job.reason or "").replace("_", " ")
    if not job.is_finished and job.progress is not None:
        done = "" if job.progress.fraction is None else f"{job.progress.fraction:.0%}"
        return " ".join(filter(None, [done, job.progress.message]))
    return ""


def ending(job: Job) -> str:
    """Say how a job ended, in one line."""
    ran = f" after {duration(job.elapsed_seconds)}" if job.elapsed_seconds is not None else ""
    said = detail(job)
    return f"{job.job_id} {job.status}{ran}{': ' + said if said else ''}"


def log_line(line: LogLine) -> str:
    """Show a line of a log."""
    said = f"{clock(line.at)}  {line.attempt or ''}  {line.level:<7}  {line.message}"
    return plain(said).plain


def status(word: str) -> Text:
    """Show a status."""
    return Text(plain(word).plain, style=_STYLES.get(word, ""))


# Dead letters, schedules, types


def letters_table(letters: Iterable[DeadLetter]) -> Table:
    """Show dead letters, one a line."""
    table = _table("JOB", "TYPE", "OWNER", "FAILED", "ALIKE", "ERROR")
    for one in letters:
        failed = clock(one.finished_at)
        shown = (one.job_id, one.type, one.owner, failed, one.fingerprint or "", detail(one))
        table.add_row(*map(plain, shown))
    return table


def groups_table(groups: Iterable[DeadLetterGroup]) -> Table:
    """Show dead letters whose errors are alike as one."""
    table = _table("ALIKE", "COUNT", "TYPE", "LAST", "EXAMPLE", "ERROR")
    for one in groups:
        error = "" if one.error is None else f"{one.error.type}: {one.error.message or ''}"
        last = clock(one.last_failed_at)
        shown = (one.fingerprint, one.count, one.type, last, one.example or "", error)
        table.add_row(*map(plain, shown))
    return table


def schedules_table(schedules: Iterable[Schedule]) -> Table:
    """Show schedules, one a line."""
    table = _table("NAME", "WHEN", "STATE", "NEXT RUN")
    for one in schedules:
        state = "paused" if one.paused else "active"
        following = clock(one.next_runs[0]) if one.next_runs and not one.paused else ""
        table.add_row(*map(plain, (one.name, when(one), state, following)))
    return table


def schedule_view(schedule: Schedule) -> Table:
    """Show everything about a schedule."""
    told = schedule.as_json() | {"next_runs": ", ".join(map(clock, schedule.next_runs))}
    shown = {
        name.replace("_", " "): value if isinstance(value, str) else _json(value)
        for name, value in told.items()
        if value not in (None, [], {})
    }
    return facts_table(shown)


def when(schedule: Schedule) -> str:
    """Say when a schedule runs."""
    if schedule.in_words:
        return schedule.in_words
    return schedule.cron or f"every {duration(schedule.every_seconds)}"


def types_table(types: Iterable[JobType]) -> Table:
    """Show what can be submitted."""
    table = _table("TYPE", "RUN BY", "PAYLOAD", "DESCRIPTION")
    for one in types:
        fields = ", ".join((one.payload_schema or {}).get("properties", {}))
        table.add_row(*map(plain, (one.name, one.executor or "", fields, one.description)))
    return table


# The service


def workers_table(workers: Iterable[Worker]) -> Table:
    """Show workers, one a line."""
    table = _table("WORKER", "KIND", "STATE", "HOST", "PROCESSES", "CPU", "MEMORY MB", "RUNS")
    for one in workers:
        state = _state(one)
        runs = ", ".join(job.job_id for job in one.running)
        cpu = "" if one.cpu_units is None else f"{one.cpu_units:g}"
        sizes = (one.processes or "", cpu, one.memory_mb or "")
        shown = (one.name, one.executor, state, one.host or "", *sizes, runs)
        table.add_row(*map(plain, shown))
    return table


def stats_view(stats: Stats) -> RenderableType:
    """Show figures."""
    facts = {
        "whose": "everybody's" if stats.of == "all" else "your own",
        "jobs": _counts(stats.jobs),
        "could start": _counts(stats.classes),
        "last hour": _counts(stats.finished_last_hour),
        "per minute": f"{stats.finished_per_minute:.1f} finished",
        "wait": _spread(stats.wait_seconds.as_json()),
        "run": _spread(stats.run_seconds.as_json()),
        "oldest ready": duration(stats.oldest_ready_seconds),
        "workers": str(stats.workers),
    }
    return Group(facts_table(facts), utilisation(stats.reserved, stats.capacity))


def utilisation(reserved: Offer | None, capacity: Offer | None) -> RenderableType:
    """Show how much of what there is is taken."""
    if reserved is None or capacity is None:
        return Text()
    table = Table.grid(padding=(0, 2))
    for name, taken, total in (
        ("CPU", reserved.cpu_units, capacity.cpu_units),
        ("memory MB", reserved.memory_mb, capacity.memory_mb),
        ("slots", reserved.slots, capacity.slots),
    ):
        table.add_row(name, bar(taken, total), f"{taken:g} of {total:g}")
    return table


def bar(part: float, whole: float) -> ProgressBar:
    """Show a part of a whole; of nothing, nothing is taken."""
    return ProgressBar(total=whole or 1, completed=min(part, whole), width=_BAR_WIDTH)


# Words and times


def facts_table(facts: Mapping[str, Text | str | None]) -> Table:
    """Show names and values, leaving out what is not known."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value:
            table.add_row(name, value if isinstance(value, Text) else plain(value))
    return table


def clock(instant: datetime | None) -> str:
    """Show an instant by the clock of whoever looks."""
    return "" if instant is None else f"{instant.astimezone():%Y-%m-%d %H:%M:%S}"


def duration(seconds: float | None) -> str:
    """Show how long something took, in the unit that fits."""
    if seconds is None:
        return ""
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.1f} min"
    return f"{seconds / _HOUR:.1f} h" if seconds < _DAY else f"{seconds / _DAY:.1f} days"


def _table(*heads: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for head in heads:
        table.add_column(head, overflow="fold", no_wrap=head in {"JOB", "STATUS", "NAME", "ALIKE"})
    return table


def _time(job: Job) -> str:
    return duration(job.waited_seconds if job.elapsed_seconds is None else job.elapsed_seconds)


def _state(worker: Worker) -> str:
    if worker.asked_at is not None:
        return f"asked {clock(worker.asked_at)}"
    return worker.state or "" if worker.alive else "gone"


def _estimate(job: Job) -> str:
    start = job.waiting and job.waiting.estimated_start
    if not start:
        return ""
    latest = f" to {clock(start.latest)}" if start.latest else " or later"
    return clock(start.earliest) + latest


def _class(job: Job) -> str | None:
    return job.priority if job.priority_level is None else f"{job.priority} ({job.priority_level})"


def _takes(job: Job) -> str:
    needs = job.resource_requirements
    return "" if needs is None else f"{needs.cpu_units:g} CPU units, {needs.memory_mb} MB"


def _parent(parent: str | Dependency) -> str:
    return parent if isinstance(parent, str) else f"{parent.job_id} ({parent.when})"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"


def _spread(spread: Mapping[str, float | None]) -> str:
    known = {name: value for name, value in spread.items() if isinstance(value, int | float)}
    return ", ".join(f"{name} {duration(value)}" for name, value in known.items())


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
