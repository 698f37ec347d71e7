"""How Postgres goes about what every job needs: by index, however many jobs there are.

A verb is run once to learn its statements. Each of them is then explained twice, with its
parameters and without: after some calls Postgres settles for a plan of the second kind.
"""

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import ColumnElement, Connection, Engine, Select, event, func, select, text, true
from sqlalchemy.orm import Session

from scheduler.callback import Reply
from scheduler.models import Group, Job, JobEvent, JobLog, Schedule, Searched, User
from scheduler.states import PENDING, Condition, FeedKind, JobStatus, Overlap, Role
from scheduler.store import (
    admission,
    callbacks,
    dependencies,
    finding,
    picture,
    recovery,
    retention,
    ticking,
    timers,
    work,
)
from scheduler.store.cancellation import cancel
from scheduler.store.changing import Change, change
from scheduler.store.dead_letters import discard, hold
from scheduler.store.leader import Memory
from scheduler.store.revival import run_again
from scheduler.store.submission import submit
from tests.factories import (
    MINUTE,
    NOON,
    make_group,
    make_job,
    make_policy,
    make_schedule,
    make_submission,
    make_type,
    make_user,
    make_worker,
)
from webapp import access, dead_letters, figures, metrics, queries, usage, workflows
from webapp.access import Account
from webapp.cursors import write_cursor

S = JobStatus
LARGE = {
    "attempts",
    "audit_log",
    "callback_deliveries",
    "callbacks",
    "dependencies",
    "job_events",
    "job_logs",
    "jobs",
    "ready",
    "schedules",
    "searched",
    "timers",
    "users",
}
"""Tables that grow with users or jobs: reading one of them from end to end is too much."""

WITHOUT_PLAN = ("SAVEPOINT", "SET LOCAL")
LEASE = timedelta(seconds=30)
LATE = NOON + timedelta(days=36_500)
HOW_MANY = {S.COMPLETED: 2000, S.READY: 10_000, S.FAILED: 5000}
OTHERS = 20_000
Statement = tuple[str, Any]


@dataclass(frozen=True)
class Filled:
    """A database with a past."""

    session: Session
    owner: int
    owner_name: str
    jobs: dict[JobStatus, list[int]]


@pytest.fixture(scope="module")
def filled(engine: Engine) -> Iterator[Filled]:
    with engine.connect() as connection, connection.begin() as outer:
        # A statement that is only explained has no parameters, and would not get by when prepared.
        driver: Any = connection.connection.driver_connection
        usual, driver.prepare_threshold = driver.prepare_threshold, None
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            yield _fill(session)
        outer.rollback()
        driver.prepare_threshold = usual


_USERS = """
INSERT INTO users (username, password_hash, role, created_at)
SELECT 'other' || n, '!', 'user', now() FROM generate_series(1, :others) AS n RETURNING id
"""
_JOBS = """
INSERT INTO jobs ({columns})
SELECT {values} FROM jobs CROSS JOIN generate_series(1, :count) AS n WHERE jobs.id = :id
RETURNING id
"""
_VALUES = {
    "job_id": "jobs.job_id || '_' || n",
    "rank": "jobs.rank + n",
    "owner_id": "CASE WHEN n < 100 THEN jobs.owner_id"
    " ELSE (CAST(:others AS bigint[]))[1 + n % 100] END",
    "due_at": "CASE WHEN n < 100 THEN jobs.due_at ELSE jobs.due_at + interval '10 years' END",
    "tags": "ARRAY['tag' || n % 1000]",
    "finished_at": "jobs.finished_at + make_interval(secs => n)",
    "error_fingerprint": "'alike' || n % 50",
    "discarded_at": "CASE WHEN n % 10 = 9 AND jobs.status = 'failed' THEN now() END",
}
_BESIDE = """
DELETE FROM ready; DELETE FROM active; DELETE FROM timers; DELETE FROM attempts;

INSERT INTO ready (owner_id, rank, job_id, job_type, job_class, tags, cpu_units, memory_mb,
                   expected_seconds, timeout_seconds, ready_at, executor)
SELECT owner_id, rank, id, type, job_class, tags, cpu_units, memory_mb, 1, 60, now(), executor
FROM jobs WHERE status = 'ready';

INSERT INTO active (job_id, attempt, owner_id, job_type, job_class, cpu_units, memory_mb,
                    expected_seconds, timeout_seconds, max_timeout_seconds, charge, express, epoch,
                    admitted_at, published_at, executor)
SELECT id, 1, owner_id, type, job_class, cpu_units, memory_mb, 1, 60, 60, 0.1, false, 1, now(),
       now(), executor
FROM jobs WHERE status IN ('queued', 'running');

UPDATE active
SET claimed_at = now(), worker = 'w', pid = mod(id, 8),
    lease_until = now() + CASE WHEN mod(id, 10) = 0 THEN interval '-1 s' ELSE interval '1 h' END
FROM jobs WHERE jobs.id = active.job_id AND jobs.status = 'running';

INSERT INTO timers SELECT due_at, id, 'due' FROM jobs WHERE due_at IS NOT NULL;
INSERT INTO timers
SELECT now() + make_interval(days => 1, secs => id), id, 'deadline' FROM jobs
WHERE status = 'ready';

WITH child AS (
    SELECT id, status, row_number() OVER (PARTITION BY status ORDER BY id) AS n FROM jobs
    WHERE status IN ('blocked', 'ready')
),
parent AS (SELECT id, row_number() OVER (ORDER BY id) AS n FROM jobs WHERE status = 'completed')
INSERT INTO dependencies
SELECT child.id, parent.id, 'completed', child.status = 'ready' FROM child JOIN parent USING (n);

INSERT INTO attempts (job_id, attempt, worker, pid, queued_at, started_at)
SELECT id, 1, 'w', 1, now(), now() FROM jobs WHERE attempt > 0 AND status <> 'queued';

INSERT INTO job_events (job_id, owner_id, at, verb, status, attempt)
SELECT id, owner_id, now(), 'submit', status, 0 FROM jobs;

INSERT INTO job_logs (job_id, attempt, at, level, message)
SELECT id, 1, now(), 'INFO', 'x' FROM jobs;

DELETE FROM searched;
INSERT INTO searched
SELECT id, CASE WHEN mod(id, 1000) = 0 THEN 'rare' ELSE type END, created_at + id * interval '1 s',
       tags, concat_ws(chr(10), job_id, tags[1])
FROM jobs;
-- What autovacuum does in time; until then each search reads what is pending.
SELECT gin_clean_pending_list('ix_searched_text'), gin_clean_pending_list('ix_searched_tags');
UPDATE jobs SET schedule = 'schedule' || mod(id, 50) WHERE mod(id, 2) = 0;

INSERT INTO schedules (owner_id, name, template, cron, timezone, overlap, catch_up, paused, next_at,
                       due_at, created_at)
SELECT id, 'nightly' || mod(id, 5000), '{"type": "simulate"}', '0 0 * * *', 'UTC', 'skip', 'all',
       false, '2050-01-01', '2050-01-01', now()
FROM users;

INSERT INTO callbacks (job_id, owner_id, outcome, created_at, due_at, delivered_at, tries)
SELECT id, owner_id, '{"status": "completed", "error_type": null, "error_message": null,
       "started_at": null, "finished_at": null, "reason": null, "result": null, "attempt": 1}',
       now(),
       CASE WHEN mod(id, 2) = 0 THEN now() - interval '1 s' END,
       CASE WHEN mod(id, 2) = 1 THEN now() END, 1
FROM jobs WHERE status IN ('completed', 'ready');

INSERT INTO callback_deliveries (callback_id, number, at, status_code, milliseconds)
SELECT id, 1, now(), 503, 5 FROM callbacks;

INSERT INTO callback_secrets (user_id, secret, made_at)
SELECT DISTINCT owner_id, 'x', now() FROM callbacks;

INSERT INTO audit_log (at, actor, action, target, detail)
SELECT now() - make_interval(secs => n), 'boss' || mod(n, 100), 'users.change',
       'users/' || mod(n, 1000), '{}'
FROM generate_series(1, 20000) AS n;

INSERT INTO meters (owner_id, tag) SELECT id, CASE WHEN mod(id, 100) = 0 THEN 1 END FROM users;

ANALYZE
"""


def _fill(session: Session) -> Filled:
    # As with lines a hundred times as long, where an index is the cheaper way by far.
    session.execute(text("SET LOCAL random_page_cost = 1.1"))
    make_type(session)
    make_worker(session)
    make_policy(session, rules=[{"name": "x", "match": {}, "effect": {"caps": {"backlog": 10**6}}}])
    group = make_group(session, cap_backlog=100_000)
    owner = make_user(session, cap_backlog=100_000, group_id=group.id)
    others = list(session.execute(text(_USERS), {"others": OTHERS}).scalars())
    jobs = {status: _many(session, owner, others, status) for status in JobStatus}
    session.connection().exec_driver_sql(_BESIDE)
    return Filled(session, owner.id, owner.username, jobs)


def _many(session: Session, owner: User, others: list[int], status: JobStatus) -> list[int]:
    first = make_job(session, owner, status)
    columns = [column.key for column in Job.__table__.columns if column.key != "id"]
    values = [_VALUES.get(column, f"jobs.{column}") for column in columns]
    query = text(_JOBS.format(columns=", ".join(columns), values=", ".join(values)))
    parameters = {"count": HOW_MANY.get(status, 300), "id": first.id, "others": others}
    return [first.id, *session.execute(query, parameters).scalars()]


def _attempts(filled: Filled, status: JobStatus) -> list[tuple[int, int]]:
    return [(job, 1) for job in filled.jobs[status][:5]]


def _submit(filled: Filled) -> object:
    parents = filled.session.scalars(select(Job.job_id).where(Job.owner_id == filled.owner))
    waits_for = tuple((parent, Condition.COMPLETED) for parent in parents.fetchmany(3))
    batch = [make_submission("first", idempotency_key="k"), make_submission(depends_on=waits_for)]
    submit(filled.session, filled.owner, batch, batch=True)
    return submit(filled.session, filled.owner, batch[:1], batch=True)


def _resolve(filled: Filled) -> object:
    ended, linked = filled.jobs[S.COMPLETED][:20], filled.jobs[S.BLOCKED][30:35]
    told = [(FeedKind.ENDED, job) for job in ended] + [(FeedKind.LINKED, job) for job in linked]
    rows = [dependencies.FeedRow(kind, job, filled.owner, *[None] * 6) for kind, job in told]
    return dependencies.resolve(filled.session, rows)


def _revive(filled: Filled) -> object:
    """Run a job again because of which another was cancelled."""
    parent, child = filled.jobs[S.FAILED][0], filled.jobs[S.CANCELLED][0]
    filled.session.execute(
        text(
            "UPDATE jobs SET reason = 'dependency_failed', reason_job_id = parent.job_id"
            " FROM jobs AS parent WHERE jobs.id = :child AND parent.id = :parent"
        ),
        {"child": child, "parent": parent},
    )
    edge = text("INSERT INTO dependencies VALUES (:child, :parent, 'completed', false)")
    filled.session.execute(edge, {"child": child, "parent": parent})
    run_again(filled.session, [parent])
    return dependencies.resolve(filled.session, dependencies.take(filled.session, limit=100))


def _forget(filled: Filled) -> object:
    """Forget a few of many finished jobs, all of which are old."""
    return retention.forget_finished(
        filled.session, finished_before=NOON + 2 * MINUTE, failed_before=NOON, limit=5
    )


def _note(filled: Filled) -> object:
    call = callbacks.take(filled.session, limit=8)[0]
    return callbacks.note(filled.session, call, Reply(5, status_code=503), again_in=MINUTE)


def _admit(filled: Filled) -> object:
    wanted = [
        admission.Admitted(job, 0.1, express=False, expected_seconds=1.0)
        for job in filled.jobs[S.READY][:20]
    ]
    return admission.admit(filled.session, wanted, epoch=1)


def _change(filled: Filled) -> object:
    """Change everything there is to change about a job in line."""
    wanted = Change(
        priority_level=0, tags=("x",), cpu_units=Decimal(1), memory_mb=64, moves_time=True
    )
    return change(filled.session, filled.jobs[S.READY][0], wanted)


def _make_due(filled: Filled) -> object:
    """Make jobs of schedules that are due, beside many that are not."""
    owner = filled.session.get_one(User, filled.owner)
    make_schedule(filled.session, owner, "skips", overlap=Overlap.SKIP)
    make_schedule(filled.session, owner, "schedule4", overlap=Overlap.REPLACE)
    return ticking.make_due(filled.session, now=NOON, limit=50, ticks=500).moves


def _mark_published(filled: Filled) -> object:
    jobs = _attempts(filled, S.QUEUED)
    parcels = [admission.Parcel(job, attempt, "normal", 60) for job, attempt in jobs]
    admission.mark_published(filled.session, parcels)
    return parcels


ACTS: dict[str, Callable[[Filled], object]] = {
    "read the snapshot": lambda f: (
        picture.read_snapshot(f.session, Memory({}, None), now=NOON).candidates
    ),
    "submit": _submit,
    "resolve": _resolve,
    "release due": lambda f: timers.release_due(f.session, now=NOON + MINUTE, limit=50),
    "expire": lambda f: timers.expire(f.session, now=NOON, limit=50) or True,
    "make due": _make_due,
    "end lost": lambda f: recovery.end_lost(f.session, limit=3),
    "admit": _admit,
    "mark published": _mark_published,
    "start": lambda f: work.start(
        f.session, _attempts(f, S.QUEUED), worker="w", pid=1, lease=LEASE
    )[0],
    "succeed": lambda f: work.succeed(
        f.session, [work.Success(job, 1, None) for job, _ in _attempts(f, S.RUNNING)]
    ),
    "retry": lambda f: work.fail(f.session, work.Failure(f.jobs[S.RUNNING][0], 1, "E", "no")),
    "fail": lambda f: work.fail(
        f.session, work.Failure(f.jobs[S.RUNNING][0], 1, "E", "no", retryable=False)
    ),
    "stop": lambda f: work.stop(f.session, f.jobs[S.RUNNING][0], 1),
    "snooze": lambda f: work.snooze(f.session, f.jobs[S.RUNNING][0], 1, delay=MINUTE),
    "give back": lambda f: work.give_back(f.session, _attempts(f, S.RUNNING)),
    "give time": lambda f: work.give_time(f.session, f.jobs[S.RUNNING][0], 1, seconds=5.0),
    "beat": lambda f: work.beat(f.session, f.jobs[S.RUNNING][0], 1, lease=LEASE).alive,
    "show progress": lambda f: work.set_progress(f.session, f.jobs[S.RUNNING][0], 1, 0.5, None),
    "cancel a waiting job": lambda f: cancel(f.session, f.jobs[S.SCHEDULED][0]),
    "cancel a running job": lambda f: cancel(f.session, f.jobs[S.RUNNING][0]),
    "change a waiting job": _change,
    "postpone": lambda f: change(
        f.session, f.jobs[S.READY][0], Change(moves_time=True, run_at=LATE)
    ),
    "run again": lambda f: run_again(f.session, f.jobs[S.FAILED][:5]),
    "revive": _revive,
    "hold dead letters": lambda f: hold(f.session, f.jobs[S.FAILED][:5]),
    "read payloads of dead letters": lambda f: dead_letters.payloads(
        f.session, f.jobs[S.FAILED][:5]
    ),
    "discard": lambda f: discard(f.session, f.jobs[S.FAILED][:5]),
    "forget": _forget,
    "take callbacks": lambda f: callbacks.take(f.session, limit=8),
    "note a callback": _note,
    "send a callback again": lambda f: callbacks.send_again(f.session, f.jobs[S.COMPLETED][0]),
    "read a secret": lambda f: callbacks.secret_of(f.session, f.owner),
    "change a secret": lambda f: callbacks.rotate_secret(f.session, f.owner),
}


@pytest.mark.parametrize("name", ACTS)
def test_a_verb_reads_no_large_table_from_end_to_end(filled: Filled, name: str) -> None:
    statements = _statements(filled, ACTS[name])

    read = {
        (table, statement)
        for statement, parameters in statements
        for plan in _plans(filled.session.connection(), statement, parameters)
        for table in _read_whole(plan)
    }
    assert not read, "\n\n".join(f"{table}: {statement}" for table, statement in read)


def _newest(filled: Filled, **columns: object) -> Select[Any]:
    wanted = select(Job.id).where(Job.id < filled.jobs[S.COMPLETED][-1]).filter_by(**columns)
    return wanted.order_by(Job.id.desc()).limit(50)


def _schedules(**columns: object) -> Select[Any]:
    return select(Schedule.id).filter_by(**columns).order_by(Schedule.id.desc()).limit(50)


OPERATOR = Account(1, "olga", Role.OPERATOR, 1)
ALIKE = dead_letters.Filter(fingerprint="alike7")
LATELY = dead_letters.Filter(failed_after=NOON, failed_before=NOON + 50 * MINUTE)
TYPED = dead_letters.Filter(type="simulate")
SAID = dead_letters.Filter(text="no")
ON = dead_letters.Place(NOON + 60 * MINUTE, 10**9)


def _own(filled: Filled) -> ColumnElement[bool]:
    return Job.owner_id == filled.owner


def _everybodys(_: Filled) -> ColumnElement[bool]:
    return true()


def _somebodys(filled: Filled) -> ColumnElement[bool]:
    return access.visible_jobs(OPERATOR, filled.owner_name)


def _dead_letters() -> Iterator[tuple[str, Callable[[Filled], Select[Any]]]]:
    """Yield what is read of dead letters under each filter, for whoever asks."""
    reads: dict[str, Callable[[dead_letters.Listing], Select[Any]]] = {
        "page": lambda listing: listing.first(50),
        "end": lambda listing: listing.end_of_window(),
        "number": lambda listing: listing.number(1000),
        "groups": lambda listing: listing.alike(50, ON),
        "how many in groups": lambda listing: listing.looked_at(),
    }
    for who in (_own, _everybodys, _somebodys):
        for wanted in (dead_letters.Filter(), ALIKE, LATELY, TYPED, SAID):
            for name, read in reads.items():
                listed = functools.partial(_listed, who=who, wanted=wanted, read=read)
                yield f"{who.__name__} dead letters, {name}, {wanted}", listed


def _listed(
    filled: Filled,
    *,
    who: Callable[[Filled], ColumnElement[bool]],
    wanted: dead_letters.Filter,
    read: Callable[[dead_letters.Listing], Select[Any]],
) -> Select[Any]:
    return read(dead_letters.Listing(who(filled), wanted, ON))


def _found(filled: Filled, **filters: Any) -> Select[Any]:
    wanted = queries.Filter(**filters)
    finder = queries.Finder(found=queries.searched(filled.session, wanted))
    return queries.Listing(Job.owner_id == filled.owner, wanted, finder, limit=50).page()


FEW: dict[str, tuple[str, dict[str, Any]]] = {
    "type": ("ix_searched_type", {"types": ["rare"]}),
    "tag": ("ix_searched_tags", {"tags": ["tag7"]}),
    "text": ("ix_searched_text", {"text": "_777"}),
    "time": (
        "ix_searched_created_at_job_id",
        {"created_after": NOON + 5 * MINUTE, "created_before": NOON + 8 * MINUTE},
    ),
}


@pytest.mark.parametrize("name", FEW)
def test_few_jobs_are_found_by_the_index_of_their_filter(filled: Filled, name: str) -> None:
    index, filters = FEW[name]
    statements = _statements(filled, lambda f: [f.session.execute(_found(f, **filters))])

    ((statement, parameters),) = statements
    # Without parameters nothing is known to be rare: that plan costs more and is not settled for.
    plan = next(_plans(filled.session.connection(), statement, parameters))
    assert index in {scan["Index Name"] for scan in _index_scans(plan)}
    assert _read_whole(plan) == set()


@pytest.mark.parametrize(
    ("filters", "are_few"),
    [
        ({"text": "_777"}, True),
        ({"text": "made"}, False),
        ({"types": ["rare"]}, True),
        ({"types": ["simulate"]}, False),
        ({"tags": ["tag7"]}, True),
        ({"created_before": NOON + 5 * MINUTE}, True),
        ({"created_after": NOON + 5 * MINUTE}, False),
    ],
    ids=lambda given: "-".join(given) if isinstance(given, dict) else str(given),
)
def test_the_planner_tells_few_from_many(
    filled: Filled, monkeypatch: pytest.MonkeyPatch, filters: dict[str, Any], *, are_few: bool
) -> None:
    monkeypatch.setattr(queries, "FOUND_LIMIT", 1000)

    finder = queries.finder_of(filled.session, queries.Filter(**filters))

    assert (finder.found is not None) is are_few


@pytest.mark.parametrize("owned", [True, False])
def test_a_stretch_of_a_walk_reads_the_jobs_it_looks_at_only(
    filled: Filled, monkeypatch: pytest.MonkeyPatch, *, owned: bool
) -> None:
    monkeypatch.setattr(finding, "STRETCH", 50)
    within = finding.Range(filled.owner if owned else None, filled.jobs[S.READY][0], 10**9)
    wanted = finding.Filter(statuses={S.READY, S.FAILED}, tags=["tag7"])

    steps = _statements(filled, lambda f: [next(finding.walk(f.session, within, wanted))])

    ((statement, parameters),) = steps
    explained = filled.session.connection().exec_driver_sql(
        f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters
    )
    plan = explained.scalar_one()[0]["Plan"]
    scans = [scan for scan in _index_scans(plan) if scan["Relation Name"] == "jobs"]
    assert plan["Actual Rows"] == 50
    assert len(scans) == 3
    assert max(scan["Actual Rows"] * scan["Actual Loops"] for scan in scans) <= 50


@pytest.mark.parametrize("who", ["own", "everybody's"])
@pytest.mark.parametrize(
    "wanted",
    [
        queries.Filter(),
        queries.Filter(statuses={S.READY, S.COMPLETED}),
        queries.Filter(types={"simulate"}),
        queries.Filter(types={"simulate"}, statuses={S.READY}),
    ],
    ids=["all", "in two statuses", "of a type", "of a type in a status"],
)
def test_a_page_from_the_middle_looks_at_no_more_jobs_than_it_shows(
    filled: Filled, who: str, wanted: queries.Filter
) -> None:
    visible = Job.owner_id == filled.owner if who == "own" else true()
    start = filled.jobs[S.READY][150 if who == "own" else 5000]
    listing = queries.Listing(visible, wanted, limit=10, start=start)
    ((statement, parameters),) = _statements(filled, lambda f: [f.session.execute(listing.page())])

    explained = filled.session.connection().exec_driver_sql(
        f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters
    )

    plan = explained.scalar_one()[0]["Plan"]
    assert plan["Actual Rows"] == 11
    scans = [scan for scan in _index_scans(plan) if scan["Relation Name"] == "jobs"]
    assert scans
    assert max(scan["Actual Rows"] * scan["Actual Loops"] for scan in scans) <= 11
    assert sum(scan.get("Rows Removed by Filter", 0) for scan in scans) == 0


def test_no_job_of_a_time_lies_beyond_where_a_list_of_that_time_is_sought(filled: Filled) -> None:
    instant, session = NOON + 150 * MINUTE, filled.session

    least = session.scalar(queries.first_after(instant))
    most = session.scalar(queries.last_before(instant))

    later, earlier = Searched.created_at > instant, Searched.created_at < instant
    assert session.scalar(select(func.min(Searched.job_id)).where(later)) == least
    assert session.scalar(select(func.max(Searched.job_id)).where(earlier)) == most
    assert least
    assert most
    assert least > most


PAGES: dict[str, Callable[[Filled], Select[Any]]] = {
    "everybody's jobs": _newest,
    "own jobs": lambda f: _newest(f, owner_id=f.owner),
    "own jobs in a status": lambda f: _newest(f, owner_id=f.owner, status=S.FAILED),
    "everybody's jobs in a status": lambda f: _newest(f, status=S.FAILED),
    "a job by its name": lambda _: select(Job.id).where(Job.job_id == "made_1"),
    "a user's job by its name": lambda f: _newest(f, owner_id=f.owner, job_id="made_1"),
    "own schedules": lambda f: _schedules(owner_id=f.owner),
    "everybody's schedules": lambda _: _schedules(),
    "the last jobs of a schedule": lambda f: queries.last_jobs_of_schedule(
        f.owner, "schedule4", limit=10
    ),
    "a user's schedule by its name": lambda f: _schedules(owner_id=f.owner, name="nightly"),
    "a job's events": lambda f: (
        select(JobEvent).where(JobEvent.job_id == f.jobs[S.READY][0]).order_by(JobEvent.seq)
    ),
    "a user's events since": lambda f: (
        select(JobEvent)
        .where(JobEvent.owner_id == f.owner, JobEvent.seq > 5)
        .order_by(JobEvent.seq)
        .limit(100)
    ),
    "a job's log": lambda f: (
        select(JobLog)
        .where(JobLog.job_id == f.jobs[S.READY][0], JobLog.id > 5)
        .order_by(JobLog.id)
        .limit(100)
    ),
    "a job's workflow": lambda f: workflows.connected_with(f.jobs[S.READY][0]).limit(5000),
    "edges of a workflow": lambda f: workflows.edges_among(f.jobs[S.READY][:100]).limit(20_000),
    "where a time begins": lambda _: queries.first_after(NOON + 150 * MINUTE),
    "where a time ends": lambda _: queries.last_before(NOON + 150 * MINUTE),
    "jobs found by an index": lambda f: _found(f, tags=["tag7"]),
    "many jobs of everybody with a tag": lambda _: queries.Listing(
        true(), queries.Filter(tags=["tag7"], statuses=PENDING), limit=50, start=15_000
    ).page(),
    "many jobs with a tag": lambda f: queries.Listing(
        Job.owner_id == f.owner, queries.Filter(tags=["tag7"]), limit=50
    ).page(),
    "jobs by their names": lambda _: access._by_job_ids(OPERATOR, ["made_1", "made_2"], None),
    "a user's jobs by their names": lambda f: access._by_job_ids(
        Account(f.owner, "", Role.USER, 1), ["made_1", "made_2"], None
    ),
    **dict(_dead_letters()),
}


READS: dict[str, Callable[[Filled], object]] = {
    "accounts": lambda f: queries.page_of_users(f.session, limit=50, cursor=write_cursor("other5")),
    "groups": lambda f: queries.members(f.session, f.session.query(Group).all()),
    "attempts at a job": lambda f: queries.page_of_attempts(
        f.session, f.session.get_one(Job, f.jobs[S.FAILED][0]), limit=50, cursor=None
    ),
}


@pytest.mark.parametrize("name", [*PAGES, *READS])
def test_a_list_reads_no_large_table_from_end_to_end(filled: Filled, name: str) -> None:
    read = READS.get(name) or (lambda f: [f.session.execute(PAGES[name](f))])
    statements = _statements(filled, read)

    for statement, parameters in statements:
        for plan in _plans(filled.session.connection(), statement, parameters):
            assert _read_whole(plan) == set()


def test_what_an_account_uses_is_found_by_index(filled: Filled) -> None:
    account = Account(filled.owner, filled.owner_name, Role.USER, 1)

    statements = _statements(filled, lambda f: usage.usage(f.session, account, now=NOON))

    read = [
        (table, statement)
        for statement, parameters in statements
        for plan in _plans(filled.session.connection(), statement, parameters)
        for table in _read_whole(plan)
    ]
    assert not read


@pytest.mark.parametrize("role", [Role.USER, Role.OPERATOR])
def test_a_scrape_reads_no_history_from_end_to_end(
    filled: Filled, role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As with a history a hundred times as long as the stretch of it that is looked at.
    monkeypatch.setattr(figures, "EVENTS_LOOKED_AT", 100)
    account = Account(filled.owner, filled.owner_name, role, 1)
    nowhere = Redis(port=1)

    statements = _statements(
        filled, lambda f: metrics.families(f.session, nowhere, account, now=NOON)
    )

    read = {
        (table, statement)
        for statement, parameters in statements
        for plan in _plans(filled.session.connection(), statement, parameters)
        for table in _read_whole(plan) - ({"ready"} if account.sees_everybody else set())
    }
    assert not read, "\n\n".join(f"{table}: {statement}" for table, statement in read)


def test_unfinished_jobs_of_a_schedule_are_found_among_those_of_its_owner(filled: Filled) -> None:
    statements = [each for each in _statements(filled, _make_due) if "schedule = " in each[0]]

    plans = [plan for each in statements for plan in _plans(filled.session.connection(), *each)]
    assert len(plans) == 4
    assert [_indexes(plan) for plan in plans] == [{"ix_jobs_schedule"}] * 4


def test_what_is_old_is_found_past_dead_letters_that_are_still_kept(filled: Filled) -> None:
    statements = [each for each in _statements(filled, _forget) if "finished_at < " in each[0]]

    connection = filled.session.connection()
    for (statement, parameters), index in zip(statements, _OLD, strict=True):
        explained = connection.exec_driver_sql(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters
        )
        plans = [explained.scalar_one()[0]["Plan"], *_plans(connection, statement, parameters)]
        read = [_scan_by_end(plan) for plan in plans]
        assert [scan["Index Name"] for scan in read] == [index] * 3
        assert read[0].get("Rows Removed by Filter", 0) == 0


_OLD = ("ix_jobs_finished_at_usual", "ix_jobs_dead_letters_of_all")
"""By which index those are found that are kept for the usual term, and dead letters."""


def _scan_by_end(plan: dict[str, Any]) -> dict[str, Any]:
    (scan,) = (each for each in _index_scans(plan) if "finished_at" in each.get("Index Cond", ""))
    return scan


def test_a_schedule_is_found_by_its_name(filled: Filled) -> None:
    by_name = select(Schedule.id).where(Schedule.name == "nightly7")
    ((statement, parameters),) = _statements(filled, lambda f: [f.session.execute(by_name)])

    plans = _plans(filled.session.connection(), statement, parameters)
    assert [_indexes(plan) for plan in plans] == [{"ix_schedules_name"}] * 2


def _indexes(plan: dict[str, Any]) -> set[str]:
    """Return the indexes that a plan reads."""
    found = {plan["Index Name"]} if "Index Name" in plan else set()
    return found.union(*(_indexes(part) for part in plan.get("Plans", ())))


@pytest.mark.parametrize("wanted", [dead_letters.Filter(), ALIKE, LATELY], ids=str)
@pytest.mark.parametrize(("who", "whose"), [(_own, "of_owner"), (_everybodys, "of_all")])
def test_a_page_of_dead_letters_reads_its_own_rows_of_the_index_for_its_filter(
    filled: Filled,
    who: Callable[[Filled], ColumnElement[bool]],
    whose: str,
    wanted: dead_letters.Filter,
) -> None:
    listing = dead_letters.Listing(who(filled), wanted, ON)
    statements = _statements(filled, lambda f: [f.session.execute(listing.first(11))])
    ((statement, parameters),) = statements

    connection = filled.session.connection()
    explained = connection.exec_driver_sql(
        f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters
    )
    plans = [explained.scalar_one()[0]["Plan"], *_plans(connection, statement, parameters)]

    scans = [scan for plan in plans for scan in _index_scans(plan)]
    alike = "_alike" if wanted.fingerprint else ""
    used = [f"ix_jobs_dead_letters_{whose}{alike}"] * 3
    assert [scan["Index Name"] for scan in scans] == used
    scan = scans[0]
    assert 0 < scan["Actual Rows"] <= 11
    assert scan.get("Rows Removed by Filter", 0) == 0


def _index_scans(plan: dict[str, Any]) -> list[dict[str, Any]]:
    inner = [scan for part in plan.get("Plans", ()) for scan in _index_scans(part)]
    return [plan, *inner] if "Index Name" in plan else inner


def test_a_statement_that_reads_everything_is_noticed(filled: Filled) -> None:
    by_description = select(Job.id).where(Job.description == "x")
    statements = _statements(filled, lambda f: [f.session.execute(by_description)])

    ((statement, parameters),) = statements
    read = [
        _read_whole(plan) for plan in _plans(filled.session.connection(), statement, parameters)
    ]
    assert read == [{"jobs"}, {"jobs"}]


def test_owners_with_callbacks_are_found_without_reading_the_callbacks(filled: Filled) -> None:
    statements = _statements(filled, ACTS["take callbacks"])
    taking, *_ = [each for each in statements if "RECURSIVE owners" in each[0]]
    nested = filled.session.begin_nested()

    explained = filled.session.connection().exec_driver_sql(
        "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + taking[0], taking[1]
    )

    plan = explained.scalar_one()[0]["Plan"]
    nested.rollback()
    assert plan["Actual Rows"] == 8
    assert _rows_scanned(plan) < 1000


def test_owners_in_line_are_found_without_reading_the_lines(filled: Filled) -> None:
    statements = _statements(filled, ACTS["read the snapshot"])
    (owners,) = [each for each in statements if "RECURSIVE skip" in each[0]]

    explained = filled.session.connection().exec_driver_sql(
        "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + owners[0], owners[1]
    )

    plan = explained.scalar_one()[0]["Plan"]
    assert plan["Actual Rows"] == 101
    assert _rows_scanned(plan) < 300


def _rows_scanned(plan: dict[str, Any]) -> float:
    """Return how many rows the busiest part of a plan, which was carried out, has read."""
    own = plan["Actual Rows"] * plan["Actual Loops"] if "Scan" in plan["Node Type"] else 0
    return max([own, *(_rows_scanned(part) for part in plan.get("Plans", ()))])


@pytest.mark.parametrize(
    ("name", "jobs"), [("beat", 1), ("cancel a waiting job", 1), ("start", 5), ("succeed", 5)]
)
def test_a_verb_touches_few_pages_for_each_job(filled: Filled, name: str, jobs: int) -> None:
    statements = _statements(filled, ACTS[name])

    touched = sum(_pages(filled, *statement) for statement in statements)

    assert 0 < touched < 70 * jobs


def _pages(filled: Filled, statement: str, parameters: Any) -> int:
    """Run a statement, undo it, and return how many pages of tables and indexes it looked at."""
    explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
    nested = filled.session.begin_nested()
    explained = filled.session.connection().exec_driver_sql(explain, parameters).scalar_one()
    nested.rollback()
    plan = explained[0]["Plan"]
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


def _statements(filled: Filled, act: Callable[[Filled], object]) -> list[Statement]:
    """Return what *act*, which must find something to do, sends to Postgres; undo it."""
    seen: list[Statement] = []

    def note(*arguments: Any) -> None:
        seen.append((arguments[2], arguments[3]))

    connection = filled.session.connection()
    nested = filled.session.begin_nested()
    event.listen(connection, "before_cursor_execute", note)
    try:
        assert act(filled)
        filled.session.flush()
    finally:
        event.remove(connection, "before_cursor_execute", note)
        nested.rollback()
        filled.session.expire_all()
    return [each for each in seen if not any(word in each[0] for word in WITHOUT_PLAN)]


def _plans(connection: Connection, statement: str, parameters: Any) -> Iterator[dict[str, Any]]:
    explained = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
    yield explained.scalar_one()[0]["Plan"]
    generic = f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {_numbered(statement)}"
    yield connection.exec_driver_sql(generic).scalar_one()[0]["Plan"]


def _numbered(statement: str) -> str:
    """Turn the driver's named parameters into Postgres's numbered ones."""
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)))
    return re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", statement)


def _read_whole(plan: dict[str, Any]) -> set[str]:
    """Return the large tables that a plan reads from end to end."""
    found = {plan["Relation Name"]} if plan["Node Type"] == "Seq Scan" else set()
    return (found & LARGE).union(*(_read_whole(part) for part in plan.get("Plans", ())))
