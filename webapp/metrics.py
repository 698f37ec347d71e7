"""The figures of /metrics, for Prometheus: read anew at every scrape, so all web processes agree.

Whoever sees everybody's jobs gets figures of all; others get those of their own jobs, and what is
about the service as a whole. Labels are words of the code, never names that somebody chose.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from redis import Redis, RedisError
from sqlalchemy import case, func, literal, select, union_all
from sqlalchemy.orm import InstrumentedAttribute, Session

from scheduler.models import Active, Ask, Feed, Job, Outbox, Ready, SchedulerLease
from scheduler.states import JobClass, JobStatus, Outcome
from scheduler.store import counts, estimates, fleet
from webapp import figures
from webapp.access import Account, visible

_BYTES = 1024 * 1024

_UNFINISHED_ELSEWHERE = (JobStatus.SCHEDULED, JobStatus.BLOCKED, JobStatus.RETRYING)
"""Statuses of jobs that are neither in line nor active; few, and found by an index."""


class _Figures(Collector):
    """Hands over what one scrape has read."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Return every family once."""
        return self._families


def exposition(families: Iterable[Metric], accept: str) -> tuple[bytes, str]:
    """Write *families* down in the format a scraper accepts; return it with its content type."""
    registry = CollectorRegistry()
    registry.register(_Figures(families))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def families(session: Session, redis: Redis, account: Account, *, now: datetime) -> list[Metric]:
    """Return the figures *account* may see."""
    parts: Iterable[Callable[[], Iterator[Metric]]] = (
        lambda: _jobs(session, account),
        lambda: _waits(session, account, now),
        lambda: _counted(session, account),
        lambda: _machine(session, account),
        lambda: _fleet(session),
        lambda: _leader(session),
        lambda: _estimates(session),
        lambda: _on_the_way(session),
        lambda: _broker(redis),
    )
    return [family for part in parts for family in part()]


def _jobs(session: Session, account: Account) -> Iterator[Metric]:
    is_queued = case((Active.claimed_at.is_(None), JobStatus.QUEUED), else_=JobStatus.RUNNING)
    found = union_all(
        select(literal(JobStatus.READY).label("status"), Ready.job_class, func.count())
        .where(visible(Ready.owner_id, account))
        .group_by(Ready.job_class),
        select(is_queued, Active.job_class, func.count())
        .where(visible(Active.owner_id, account))
        .group_by(is_queued, Active.job_class),
        select(Job.status, Job.job_class, func.count())
        .where(visible(Job.owner_id, account), Job.status.in_(_UNFINISHED_ELSEWHERE))
        .group_by(Job.status, Job.job_class),
    )
    counted = {(status, job_class): count for status, job_class, count in session.execute(found)}
    statuses = (JobStatus.READY, JobStatus.QUEUED, JobStatus.RUNNING, *_UNFINISHED_ELSEWHERE)
    jobs = GaugeMetricFamily("fairq_jobs", "Unfinished jobs.", labels=["status", "class"])
    for status in statuses:
        for job_class in JobClass:
            jobs.add_metric([status, job_class], counted.get((status, job_class), 0))
    yield jobs


def _waits(session: Session, account: Account, now: datetime) -> Iterator[Metric]:
    oldest = figures.oldest_ready(session, account)
    yield GaugeMetricFamily(
        "fairq_oldest_ready_seconds",
        "How long the job has waited that has waited longest of those that could start.",
        value=0 if oldest is None else max(0.0, (now - oldest).total_seconds()),
    )
    waited = figures.spread(session, account, now, Job.started_at - Job.ready_at)
    ran = figures.spread(session, account, now, Job.finished_at - Job.started_at)
    yield _quantiles("fairq_wait_seconds", "How long jobs waited that finished of late.", waited)
    yield _quantiles("fairq_run_seconds", "How long jobs ran that finished of late.", ran)


def _quantiles(name: str, about: str, spread: dict[str, float | None]) -> Metric:
    family = GaugeMetricFamily(name, f"{about} Over the last hour.", labels=["quantile"])
    for word, value in spread.items():
        if value is not None:
            family.add_metric([f"0.{word.removeprefix('p')}".rstrip("0")], value)
    return family


def _counted(session: Session, account: Account) -> Iterator[Metric]:
    found = counts.read(session, None if account.sees_everybody else account.id)
    admitted = found[counts.ADMITTED].number
    yield CounterMetricFamily("fairq_admissions", "Attempts that were admitted.", value=admitted)
    ended = CounterMetricFamily(
        "fairq_attempts_ended", "Attempts that ended, by how.", labels=["outcome"]
    )
    seconds = CounterMetricFamily(
        "fairq_attempt_seconds", "How long ended attempts ran, together.", labels=["outcome"]
    )
    for outcome in Outcome:
        ended.add_metric([outcome], found[outcome].number)
        seconds.add_metric([outcome], found[outcome].seconds)
    yield from (ended, seconds)


def _machine(session: Session, account: Account) -> Iterator[Metric]:
    there = figures.offer(fleet.capacity(session))
    taken = figures.reserved(session, None if account.sees_everybody else account.id)
    for name, about, values in (
        ("fairq_capacity", "What the live workers offer, or the policy's cap:", there),
        ("fairq_reserved", "What admitted and running jobs hold:", taken),
    ):
        yield GaugeMetricFamily(f"{name}_cpu_units", f"{about} CPU.", value=values["cpu_units"])
        memory = values["memory_mb"] * _BYTES
        yield GaugeMetricFamily(f"{name}_memory_bytes", f"{about} memory.", value=memory)
        yield GaugeMetricFamily(f"{name}_slots", f"{about} processes.", value=values["slots"])


def _fleet(session: Session) -> Iterator[Metric]:
    workers = GaugeMetricFamily("fairq_workers", "Celery workers that live.", labels=["state"])
    live = [fleet.state_of(worker) for worker in fleet.live_workers(session)]
    for state in ("online", "draining"):
        workers.add_metric([state], live.count(state))
    yield workers
    asks = select(func.count()).where(Ask.job_id.is_(None), Ask.expires_at > func.now())
    yield GaugeMetricFamily(
        "fairq_asks", "Pull workers that wait for a job now.", value=session.scalar(asks)
    )


def _leader(session: Session) -> Iterator[Metric]:
    age = func.extract("epoch", func.clock_timestamp() - SchedulerLease.renewed_at)
    epoch, seconds = session.execute(select(SchedulerLease.epoch, age)).one()
    yield GaugeMetricFamily("fairq_leader_epoch", "The number of the leader's term.", value=epoch)
    if seconds is not None:
        yield GaugeMetricFamily(
            "fairq_leader_age_seconds",
            "How long ago the leader has taken a turn.",
            value=max(0.0, float(seconds)),
        )


def _estimates(session: Session) -> Iterator[Metric]:
    starts = GaugeMetricFamily(
        "fairq_estimated_starts",
        "Starts of the last seven days, by whether they kept to the range that was told first.",
        labels=["method", "verdict"],
    )
    tallies = estimates.tallies(session, span=figures.SCORED_OVER)
    for method, tally in tallies.items():
        for verdict in ("within", "early", "late"):
            starts.add_metric([method, verdict], getattr(tally, verdict))
    yield starts
    total = sum(tallies.values(), estimates.Tally())
    if total.scored:
        yield GaugeMetricFamily(
            "fairq_estimates_hit_ratio",
            "The part of those starts that kept to their range.",
            value=total.within / total.scored,
        )


def _on_the_way(session: Session) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "fairq_outbox_messages", "Messages yet to be sent.", value=_rows(session, Outbox.job_id)
    )
    yield GaugeMetricFamily(
        "fairq_feed_rows", "What the leader has yet to take in.", value=_rows(session, Feed.seq)
    )


def _rows(session: Session, key: InstrumentedAttribute[int]) -> int:
    return session.scalar(select(func.count(key))) or 0


def _broker(redis: Redis) -> Iterator[Metric]:
    """Tell whether the broker answers, and if so what waits there."""
    depths = GaugeMetricFamily(
        "fairq_queue_messages", "Messages that no worker has taken.", labels=["class"]
    )
    try:
        for job_class in JobClass:
            depths.add_metric([job_class], redis.llen(job_class))
    except RedisError:
        yield _broker_up(0)
    else:
        yield from (_broker_up(1), depths)


def _broker_up(value: int) -> Metric:
    return GaugeMetricFamily("fairq_broker_up", "Whether the broker answers.", value=value)
