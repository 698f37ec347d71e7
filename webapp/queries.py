"""Read-only selects for answers and pages. Every one starts from what the caller may see.

Lists are keyset pages, and none costs more the longer the table grows. Where filters leave few of
all jobs, an index finds those. Where they leave many, some are met soon: a page looks at a bounded
stretch of jobs, and says where to go on.
"""

import json
import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from redis import Redis
from sqlalchemy import (
    ColumnElement,
    FromClause,
    Interval,
    Row,
    Select,
    Text,
    any_,
    cast,
    func,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import InstrumentedAttribute, Session

from scheduler import clock
from scheduler.events import Standing, read_standings
from scheduler.job_request import is_errand
from scheduler.models import (
    Active,
    Attempt,
    Dependency,
    Group,
    Job,
    JobEvent,
    JobLog,
    JobType,
    Schedule,
    Searched,
    Token,
    User,
    Worker,
)
from scheduler.payloads import Schemas
from scheduler.states import (
    UNFINISHED,
    WAITING,
    Condition,
    Executor,
    JobClass,
    JobStatus,
)
from scheduler.store import fleet
from scheduler.store.finding import Filter, among, has, in_statuses, other_conditions
from webapp.answers import json_body
from webapp.cursors import PLACES, one_page, read_places, write_cursor
from webapp.errors import FieldError, Problem
from webapp.places import far_back
from webapp.schemas.bulk import BulkFilter
from webapp.schemas.listing import JobsQuery

SCAN_LIMIT = 5_000
"""Jobs that one page looks at."""

FOUND_LIMIT = 10_000
"""Jobs that an index may find to make a page of, about."""

PAGE_BYTES = 8 * 2**20
"""Payloads and results after which a page ends early, about: each may be large."""

READ_AT_ONCE = 50
"""Jobs that are read before their bytes are counted."""

DISORDER = 20_000
"""How many places the order of submission may differ from that of ids: two of the largest batches
that were taken in side by side."""

PARTS_WEIGHED = 4
"""Parts of a text that are asked about, the longest, whether they are rare."""

_INDEXABLE = re.compile(r"\w{3}")  # shorter words hold no trigram
_PART = re.compile(r"[^\W_]{5,}")  # shorter ones hold too few trigrams to be rare by themselves


def filter_of(query: JobsQuery | BulkFilter) -> Filter:
    """Return what an address, or a body, asks for."""
    return Filter(
        owner=query.owner,
        statuses=query.statuses(),
        types=query.type,
        classes={JobClass(word) for word in query.priority if word in set(JobClass)},
        levels={int(word) for word in query.priority if word.isdecimal()},
        tags=query.tag,
        text=query.q,
        created_after=query.created_after,
        created_before=query.created_before,
    )


@dataclass(frozen=True, slots=True)
class Link:
    """A job that another waits for."""

    id: int
    job_id: str
    type: str
    status: JobStatus
    when: Condition
    met: bool


@dataclass(frozen=True, slots=True)
class JobView:
    """A job with what is known around it."""

    job: Job
    owner: str
    depends_on: Sequence[Link] = ()
    dependents_count: int = 0
    standing: Standing | None = None
    has_worker: bool = True


@dataclass(frozen=True, slots=True)
class Running:
    """A job that a worker runs."""

    job_id: str
    owner: str
    attempt: int
    started_at: datetime
    lease_until: datetime


@dataclass(frozen=True, slots=True)
class JobPage:
    """One page of a list, and where the pages beside it start."""

    jobs: Sequence[JobView]
    next_cursor: str | None
    previous_cursor: str | None = None


def list_jobs(  # noqa: PLR0913 - a list has as many parts as its address
    session: Session,
    redis: Redis,
    visible: ColumnElement[bool],
    wanted: Filter,
    *,
    limit: int,
    cursor: str | None = None,
    oldest_first: bool = False,
    back: bool = False,
    finder: "Finder | None" = None,
) -> JobPage:
    """Return one page of the visible jobs that match: what follows *cursor*, or precedes it.

    A page may be short of *limit* and still have a next one. Who reads many takes the *finder* of
    the first for all. Raises a 422 problem for a cursor that is not one of ours, or of a list with
    other filters or another order.
    """
    check = _check_of(wanted, oldest_first=oldest_first)
    start = None if cursor is None else _read_place(cursor, check)
    ascending = oldest_first is not back
    listing = Listing(
        visible,
        wanted,
        finder or finder_of(session, wanted),
        limit=limit,
        start=start,
        oldest_first=ascending,
    )
    rows, beyond = _rows(session, listing, limit)
    views = _with_surroundings(session, redis, rows[::-1] if back else rows)
    onward = None if beyond is None else write_cursor(beyond, check)
    if back:
        rest = write_cursor(views[-1].job.id, check) if views else None
        return JobPage(views, rest, onward)
    before = write_cursor(views[0].job.id, check) if views and start is not None else None
    return JobPage(views, onward, before)


def _rows(
    session: Session, listing: "Listing", limit: int
) -> tuple[Sequence[Row[Job, str, bool]], int | None]:
    """Return the jobs of a page, and behind which one the next begins, if there may be one."""
    ids = session.scalars(listing.page()).all()
    rows, read = _read(session, ids[:limit])
    if read < len(ids):
        return rows, ids[read - 1]
    return rows, session.scalar(listing.end_of_window()) if listing.is_bounded else None


def _read(session: Session, ids: Sequence[int]) -> tuple[list[Row[Job, str, bool]], int]:
    """Return the first of some jobs, as many as a page may hold, and how many ids those are."""
    rows: list[Row[Job, str, bool]] = []
    size = read = 0
    for first in range(0, len(ids), READ_AT_ONCE):
        part = ids[first : first + READ_AT_ONCE]
        wanted = _with_owner().where(among(Job.id, part))
        found = {row[0].id: row for row in session.execute(wanted)}
        for number in part:
            if size >= PAGE_BYTES:
                return rows, read
            if number in found:  # not deleted since
                rows.append(found[number])
                size += _size(found[number][0])
            read += 1
    return rows, read


def _size(job: Job) -> int:
    return len(json_body(job.payload)) + len(json_body(job.result))


def one_job(session: Session, redis: Redis, job: Job) -> JobView:
    """Return *job* with its surroundings."""
    rows = session.execute(_with_owner().where(Job.id == job.id)).all()
    return _with_surroundings(session, redis, rows)[0]


def jobs_by_ids(
    session: Session, ids: Collection[int], *, are_new: bool, have_links: bool
) -> dict[int, JobView]:
    """Return jobs that were just submitted, by internal id.

    New jobs are not in the leader's books yet; if they are not linked either, one statement does.
    """
    rows = session.execute(_with_owner().where(among(Job.id, ids))).all()
    links = parents_of(session, ids) if have_links else {}
    counts = {} if are_new and not have_links else count_dependents(session, ids)
    return {
        job.id: JobView(
            job, owner, links.get(job.id, ()), counts.get(job.id, 0), has_worker=has_worker
        )
        for job, owner, has_worker in rows
    }


def _with_owner() -> Select[Job, str, bool]:
    """Return the select of jobs with their owners' names and whether anything could run them."""
    heard = Worker.heartbeat_at > func.now() - cast(fleet.SILENCE, Interval)
    takes_work = (Worker.state == "online", Worker.drain_requested_at.is_(None), heard)
    has_worker = select(Worker.name).where(*takes_work).exists()
    return select(Job, User.username, has_worker).join(User, User.id == Job.owner_id)


def _with_surroundings(
    session: Session, redis: Redis, rows: Sequence[Row[Job, str, bool]]
) -> list[JobView]:
    """Return jobs with links and standings, in the order given."""
    ids = [job.id for job, *_ in rows]
    links, counts = parents_of(session, ids), count_dependents(session, ids)
    waiting = {job.owner_id for job, *_ in rows if job.status in WAITING}
    standings: dict[int, Standing] = {}
    for known in read_standings(redis, sorted(waiting)).values():
        standings |= known
    far = [
        job
        for job, _, has_worker in rows
        if has_worker and job.status == JobStatus.READY and job.id not in standings
    ]
    standings |= far_back(session, redis, far, now=clock.now())
    return [
        JobView(
            job,
            owner,
            links.get(job.id, ()),
            counts.get(job.id, 0),
            standings.get(job.id),
            has_worker=has_worker,
        )
        for job, owner, has_worker in rows
    ]


def parents_of(session: Session, ids: Collection[int]) -> dict[int, list[Link]]:
    """Return what each job waits for."""
    rows = session.execute(
        select(
            Dependency.child_id,
            Job.id,
            Job.job_id,
            Job.type,
            Job.status,
            Dependency.condition,
            Dependency.met,
        )
        .join(Job, Job.id == Dependency.parent_id)
        .where(among(Dependency.child_id, ids))
        .order_by(Dependency.child_id, Dependency.parent_id)
    )
    links: dict[int, list[Link]] = {}
    for child, number, job_id, kind, status, condition, met in rows:
        link = Link(number, job_id, kind, JobStatus(status), Condition(condition), met)
        links.setdefault(child, []).append(link)
    return links


def children_of(session: Session, job: Job, *, limit: int) -> list[Link]:
    """Return the first jobs that wait for *job*."""
    rows = session.execute(
        select(Job.id, Job.job_id, Job.type, Job.status, Dependency.condition, Dependency.met)
        .join(Job, Job.id == Dependency.child_id)
        .where(Dependency.parent_id == job.id)
        .order_by(Dependency.child_id)
        .limit(limit)
    )
    return [
        Link(number, job_id, kind, JobStatus(status), Condition(condition), met)
        for number, job_id, kind, status, condition, met in rows
    ]


def count_dependents(session: Session, ids: Collection[int]) -> dict[int, int]:
    """Return how many jobs wait, or waited, for each."""
    rows = session.execute(
        select(Dependency.parent_id, func.count())
        .where(among(Dependency.parent_id, ids))
        .group_by(Dependency.parent_id)
    )
    return dict(rows.all())


def attempts(session: Session, job: Job) -> Sequence[Attempt]:
    """Return every attempt at *job*, first to last."""
    return session.scalars(
        select(Attempt).where(Attempt.job_id == job.id).order_by(Attempt.attempt)
    ).all()


def page_of_attempts(
    session: Session, job: Job, *, limit: int, cursor: str | None
) -> tuple[Sequence[Attempt], str | None]:
    """Return one page of the attempts at *job*, first to last, and the next cursor."""
    wanted = select(Attempt).where(Attempt.job_id == job.id)
    rows, onward = one_page(session, wanted, Attempt.attempt, limit=limit, cursor=cursor)
    return [attempt for attempt, _ in rows], onward


def logs(
    session: Session, job: Job, *, limit: int, cursor: str | None = None
) -> tuple[Sequence[JobLog], str | None]:
    """Return one page of the lines *job* wrote, oldest first, and the next cursor."""
    wanted = select(JobLog).where(JobLog.job_id == job.id)
    rows, onward = one_page(session, wanted, JobLog.id, limit=limit, cursor=cursor)
    return [line for line, _ in rows], onward


def events(
    session: Session, job: Job, *, limit: int, cursor: str | None = None
) -> tuple[Sequence[JobEvent], str | None]:
    """Return one page of the moves of *job*, oldest first, and the next cursor."""
    wanted = select(JobEvent).where(JobEvent.job_id == job.id)
    rows, onward = one_page(session, wanted, JobEvent.seq, limit=limit, cursor=cursor)
    return [event for event, _ in rows], onward


def job_types(session: Session) -> Sequence[JobType]:
    """Return every kind of job, by name."""
    return session.scalars(select(JobType).order_by(JobType.name)).all()


def page_of_types(
    session: Session, *, limit: int, cursor: str | None
) -> tuple[Sequence[JobType], str | None]:
    """Return one page of the kinds of job, by name, and the next cursor."""
    rows, onward = one_page(session, select(JobType), JobType.name, limit=limit, cursor=cursor)
    return [kind for kind, _ in rows], onward


def offered_types(session: Session) -> Sequence[JobType]:
    """Return the kinds of jobs that people submit, by name: none for the server's own errands."""
    return [kind for kind in job_types(session) if not is_errand(kind.name)]


def payload_schemas(session: Session) -> Schemas:
    """Return what the payloads of each kind of job are held to."""
    return Schemas({kind.name: kind.payload_schema for kind in job_types(session)})


def workers(session: Session) -> Sequence[Worker]:
    """Return every worker ever seen, by name."""
    return session.scalars(select(Worker).order_by(Worker.name)).all()


def running_on(session: Session, executor: Executor = Executor.CELERY) -> dict[str, list[Running]]:
    """Return what each worker of a kind runs, by its name, longest first."""
    rows = session.execute(
        select(
            Active.worker.label("worker"),
            Job.job_id,
            User.username,
            Active.attempt,
            Active.claimed_at,
            Active.lease_until,
        )
        .join(Job, Job.id == Active.job_id)
        .join(User, User.id == Active.owner_id)
        .where(Active.worker.is_not(None), Active.executor == executor)
        .order_by(Active.claimed_at)
    ).mappings()
    running: dict[str, list[Running]] = {}
    for row in rows:
        job = Running(
            row["job_id"], row["username"], row["attempt"], row["claimed_at"], row["lease_until"]
        )
        running.setdefault(row["worker"], []).append(job)
    return running


def tokens_of(session: Session, user_id: int) -> Sequence[Token]:
    """Return a user's tokens, newest first."""
    return session.scalars(
        select(Token).where(Token.user_id == user_id).order_by(Token.id.desc())
    ).all()


def page_of_tokens(
    session: Session, user_id: int, *, limit: int, cursor: str | None
) -> tuple[Sequence[Token], str | None]:
    """Return one page of a user's tokens, newest first, and the next cursor."""
    wanted = select(Token).where(Token.user_id == user_id)
    rows, onward = one_page(
        session, wanted, Token.id, limit=limit, cursor=cursor, newest_first=True
    )
    return [token for token, _ in rows], onward


def users(session: Session) -> Sequence[tuple[User, str | None]]:
    """Return every account with the name of its group."""
    rows = session.execute(_users().order_by(func.lower(User.username)))
    return [(user, group) for user, group in rows]


def page_of_users(
    session: Session, *, limit: int, cursor: str | None
) -> tuple[Sequence[tuple[User, str | None]], str | None]:
    """Return one page of the accounts with the names of their groups, and the next cursor."""
    name = func.lower(User.username, type_=Text)
    rows, onward = one_page(session, _users(), name, limit=limit, cursor=cursor)
    return [(user, group) for user, group, _ in rows], onward


def _users() -> Select[User, str | None]:
    return select(User, Group.name).outerjoin(Group, Group.id == User.group_id)


def names_of(session: Session, ids: Collection[int]) -> dict[int, str]:
    """Return the names of accounts."""
    rows = session.execute(select(User.id, User.username).where(among(User.id, ids)))
    return dict(rows.all())


def page_of_groups(
    session: Session, *, limit: int, cursor: str | None
) -> tuple[Sequence[Group], str | None]:
    """Return one page of the groups, by name, and the next cursor."""
    rows, onward = one_page(session, select(Group), Group.name, limit=limit, cursor=cursor)
    return [group for group, _ in rows], onward


def members(session: Session, groups: Collection[Group]) -> dict[int, list[str]]:
    """Return the names of the members of each group, by the group's id."""
    named: dict[int, list[str]] = {group.id: [] for group in groups}
    rows = session.execute(
        select(Group.id, User.username)
        .join(User, User.group_id == Group.id)
        .where(among(Group.id, named))
        .order_by(func.lower(User.username))
    )
    for group_id, name in rows:
        named[group_id].append(name)
    return named


def count_by_status(session: Session, visible: ColumnElement[bool]) -> dict[JobStatus, int]:
    """Return how many visible jobs are in each unfinished status."""
    counts = dict.fromkeys((status for status in JobStatus if status in UNFINISHED), 0)
    rows = session.execute(
        select(Job.status, func.count())
        .where(visible, Job.status.in_(sorted(UNFINISHED)))
        .group_by(Job.status)
    )
    return counts | {JobStatus(status): count for status, count in rows}


def schedules(
    session: Session, visible: ColumnElement[bool], *, limit: int, cursor: str | None
) -> tuple[Sequence[tuple[Schedule, str]], str | None]:
    """Return one page of the visible schedules with their owners' names, newest first."""
    wanted = select(Schedule, User.username).join(User, User.id == Schedule.owner_id).where(visible)
    rows, onward = one_page(
        session, wanted, Schedule.id, limit=limit, cursor=cursor, newest_first=True
    )
    return [(schedule, owner) for schedule, owner, _ in rows], onward


def last_jobs_of_schedule(owner_id: int, name: str, *, limit: int) -> Select[Job]:
    """Return the select of a schedule's last jobs, newest first.

    The index holds them by status: the last of each are few, and the last of all among them.
    """
    of_schedule = select(Job.id).where(Job.owner_id == owner_id, Job.schedule == name)
    last = [
        of_schedule.where(Job.status == status).order_by(Job.id.desc()).limit(limit)
        for status in JobStatus
    ]
    return select(Job).where(Job.id.in_(union_all(*last))).order_by(Job.id.desc()).limit(limit)


def _check_of(wanted: Filter, *, oldest_first: bool) -> int:
    """Return what the cursors of a list have in common, and those of no other list."""
    told = {
        name: sorted(map(str, value)) if isinstance(value, Collection) else str(value)
        for name, value in asdict(wanted).items()
    }
    return zlib.crc32(json.dumps([told, oldest_first], sort_keys=True).encode())


def _read_place(cursor: str, check: int) -> int:
    place, checked = read_places(cursor, 2)
    if checked != check:
        detail = (
            "The cursor belongs to a list with other filters or another sort;"
            " leave cursor out to begin this list."
        )
        raise Problem("invalid_cursor", detail, (FieldError("cursor", detail),))
    return place


@dataclass(frozen=True, slots=True)
class Finder:
    """How an index helps to make a list: by finding all that may match, or where they begin."""

    found: Select[int] | None = None
    least: int | None = None
    most: int | None = None


def finder_of(session: Session, wanted: Filter) -> Finder:
    """Return what the indexes of ``searched`` do for a list.

    Whether a filter leaves few is for the planner to say, who knows how often each word, type and
    tag occurs. Being wrong costs time and no job.
    """
    found = searched(session, wanted)
    if found is None:
        return Finder()
    if _expected(session, found) <= FOUND_LIMIT:
        return Finder(found=found)
    after, before = wanted.created_after, wanted.created_before
    return Finder(
        least=None if after is None else session.scalar(first_after(after)),
        most=None if before is None else session.scalar(last_before(before)),
    )


def searched(session: Session, wanted: Filter) -> Select[int] | None:
    """Return the select of all jobs that may match by what is indexed, if anything is."""
    conditions: list[ColumnElement[bool]] = []
    if wanted.types:
        conditions.append(Searched.type == any_(cast(sorted(wanted.types), ARRAY(Text))))
    if wanted.tags:
        conditions.append(Searched.tags.op("@>")(cast(list(wanted.tags), ARRAY(Text))))
    if wanted.text and _INDEXABLE.search(wanted.text):
        conditions += _holding(session, wanted.text)
    if wanted.created_after is not None:
        conditions.append(Searched.created_at > wanted.created_after)
    if wanted.created_before is not None:
        conditions.append(Searched.created_at < wanted.created_before)
    return select(Searched.job_id.label("id")).where(*conditions) if conditions else None


def _holding(session: Session, words: str) -> list[ColumnElement[bool]]:
    """Return conditions that whatever holds these *words* meets, and few others do.

    Their rare parts find as few as the whole, and spare the index the long lists of the trigrams
    that nearly every job has.
    """
    parts = sorted(set(_PART.findall(words)), key=len)[-PARTS_WEIGHED:]
    holding = [has(Searched.text, part) for part in parts]
    rare = [
        condition
        for condition in holding
        if _expected(session, select(Searched.job_id).where(condition)) <= FOUND_LIMIT
    ]
    return rare or [has(Searched.text, words)]


def _expected(session: Session, wanted: Select[int]) -> int:
    """Return about how many rows a select finds, as the planner sees it."""
    connection = session.connection()
    compiled = wanted.compile(connection)
    explained = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {compiled}", compiled.params)
    return int(explained.scalar_one()[0]["Plan"]["Plan Rows"])


def first_after(instant: datetime) -> Select[int]:
    """Return the select of an id that no job created after *instant* is below."""
    first = (
        select(Searched.job_id)
        .where(Searched.created_at > instant)
        .order_by(Searched.created_at)
        .limit(DISORDER)
        .subquery()
    )
    return select(func.coalesce(func.min(first.c.job_id), PLACES - 1))


def last_before(instant: datetime) -> Select[int]:
    """Return the select of an id that no job created before *instant* is above."""
    last = (
        select(Searched.job_id)
        .where(Searched.created_at < instant)
        .order_by(Searched.created_at.desc())
        .limit(DISORDER)
        .subquery()
    )
    return select(func.coalesce(func.max(last.c.job_id), 0))


class Listing:
    """The statements of one page.

    With statuses, one index range per status is read in order and merged: a single range with
    ``IN`` would have to read every older job of those statuses to sort them.
    """

    def __init__(
        self,
        visible: ColumnElement[bool],
        wanted: Filter,
        finder: Finder = Finder(),
        *,
        limit: int,
        start: int | None = None,
        oldest_first: bool = False,
    ) -> None:
        self._visible = visible
        self._wanted = wanted
        self._finder = finder
        self._limit = limit
        self._oldest_first = oldest_first
        self._bounds = _bounds(finder, start, oldest_first=oldest_first)
        self._rest = other_conditions(wanted)
        if finder.found is not None:
            self._rest += [visible, *in_statuses(wanted)]
        self.is_bounded = bool(self._rest) and finder.found is None

    def page(self) -> Select[int]:
        """Return the select of the ids of the page, and of one job more."""
        return self._matching().limit(self._limit + 1)

    def end_of_window(self) -> Select[int]:
        """Return the select of the last job looked at, if there may be more beyond it."""
        window = self._window().subquery()
        return (
            select(window.c.id).order_by(self._order(window.c.id)).offset(SCAN_LIMIT - 1).limit(1)
        )

    def _matching(self) -> Select[int]:
        """Return the select of those that match of the jobs that are looked at, in order."""
        window = self._looked_at()
        if not self._rest:
            return select(window.c.id).order_by(self._order(window.c.id))
        # One by one, as far as the page needs. Without OFFSET the planner might join the other way
        # round, and go through all jobs from the newest on to save a sort.
        job = select(Job.id).where(Job.id == window.c.id, *self._rest).offset(0).lateral("job")
        return (
            select(job.c.id)
            .select_from(window)
            .join(job, true())
            .order_by(self._order(window.c.id))
        )

    def _looked_at(self) -> FromClause:
        found = self._finder.found
        if found is None:
            window: FromClause = self._window().subquery()
            return window
        in_order = found.where(*_between(Searched.job_id, self._bounds))
        # Apart, so that the planner does not look for an index that has their order.
        ids = in_order.order_by(self._order(Searched.job_id)).cte("found")
        return ids.prefix_with("MATERIALIZED")

    def _window(self) -> Any:
        size = SCAN_LIMIT if self.is_bounded else self._limit + 1
        statuses = sorted(self._wanted.statuses)
        if not statuses:
            return self._stretch(size)
        stretches = [self._stretch(size, Job.status == status) for status in statuses]
        if len(stretches) == 1:
            return stretches[0]
        merged = union_all(*(select(stretch.subquery().c.id) for stretch in stretches)).subquery()
        return select(merged.c.id).order_by(self._order(merged.c.id)).limit(size)

    def _stretch(self, size: int, *conditions: ColumnElement[bool]) -> Select[int]:
        return (
            select(Job.id)
            .where(self._visible, *conditions, *_between(Job.id, self._bounds))
            .order_by(self._order(Job.id))
            .limit(size)
        )

    def _order(self, column: Any) -> Any:
        return column.asc() if self._oldest_first else column.desc()


def _bounds(finder: Finder, start: int | None, *, oldest_first: bool) -> tuple[int, int]:
    """Return the first and the last id that a page may show."""
    least, most = finder.least or 0, PLACES - 1 if finder.most is None else finder.most
    if start is None:
        return least, most
    return (max(least, start + 1), most) if oldest_first else (least, min(most, start - 1))


def _between(
    column: InstrumentedAttribute[int], bounds: tuple[int, int]
) -> Iterator[ColumnElement[bool]]:
    """Return the conditions that an id is within *bounds*, as far as those leave out any."""
    least, most = bounds
    if least > 0:
        yield column >= least
    if most < PLACES - 1:
        yield column <= most
