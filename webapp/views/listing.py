"""What the Jobs page shows: filters from the address, a keyset page, counts by status."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from flask import url_for
from werkzeug.datastructures import MultiDict

from scheduler import clock
from scheduler.states import JobStatus
from webapp import access, queries, serialise
from webapp.access import Account
from webapp.bodies import parse_query
from webapp.extensions import db
from webapp.schemas.listing import JobsQuery
from webapp.services import services
from webapp.views import reads

FILTERS = ("status", "type", "priority", "tag", "owner", "q", "sort")
"""What the address of the Jobs page may narrow, in the order it is shown."""

_KEYS = {*FILTERS} - {"q"}
_USUAL = {"sort": "newest"}

_CHIPS = (
    JobStatus.RUNNING,
    JobStatus.QUEUED,
    JobStatus.READY,
    JobStatus.RETRYING,
    JobStatus.SCHEDULED,
    JobStatus.BLOCKED,
    JobStatus.COMPLETED,
    JobStatus.FAILED,
    JobStatus.CANCELLED,
)


@dataclass(frozen=True, slots=True)
class Chip:
    """One status above the table, with how many jobs are in it."""

    name: str
    status: str
    count: str
    url: str
    here: bool


@dataclass(frozen=True, slots=True)
class ActiveFilter:
    """One filter in use, and where the page is without it."""

    name: str
    value: str
    without: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The Jobs page."""

    jobs: Sequence[Mapping[str, Any]]
    filters: Mapping[str, str]
    chips: Sequence[Chip]
    active: Sequence[ActiveFilter]
    types: Sequence[str]
    owners: Sequence[str]
    previous_url: str | None
    next_url: str | None
    first_url: str
    csv_url: str
    jsonl_url: str
    paged: bool


def filters_of(args: MultiDict[str, str]) -> dict[str, str]:
    """Return the filters that an address names."""
    given = {name: args.get(name, "").strip() for name in FILTERS}
    return {name: value for name, value in given.items() if value and value != _USUAL.get(name)}


def spoken(filters: Mapping[str, str]) -> dict[str, str] | None:
    """Return *filters* with ``status:running`` and its like in the text taken at their word.

    None if the text says nothing of the kind.
    """
    words = filters.get("q", "").split()
    said = {key: value for key, value in map(_pair, words) if value}
    if not said:
        return None
    rest = " ".join(word for word in words if not _pair(word)[1])
    kept = {name: value for name, value in filters.items() if name != "q"} | said
    return kept | ({"q": rest} if rest else {})


def url_of(filters: Mapping[str, str], **more: str) -> str:
    """Return the address of the Jobs page under *filters*."""
    ordered = {name: filters[name] for name in FILTERS if name in filters} | more
    return url_for("jobs.index") + (f"?{urlencode(ordered)}" if ordered else "")


def listing(account: Account, filters: Mapping[str, str], args: Mapping[str, str]) -> Listing:
    """Read the page. Raises a 422 problem for filters or a cursor that make no sense."""
    query = parse_query(JobsQuery, MultiDict(filters))
    visible = access.visible_jobs(account, query.owner)
    session, page = db.session(), _page(visible, query, args)
    counts = reads.count_by_status(session, visible)
    return Listing(
        jobs=jobs_to_json(page.jobs),
        filters=filters,
        chips=_chips(filters, counts),
        active=_active(filters),
        types=[kind.name for kind in queries.job_types(session)],
        owners=reads.usernames(session) if account.sees_everybody else (),
        previous_url=page.previous_cursor and url_of(filters, back=page.previous_cursor),
        next_url=page.next_cursor and url_of(filters, cursor=page.next_cursor),
        first_url=url_of(filters),
        csv_url=_file_url(filters, "csv"),
        jsonl_url=_file_url(filters, "jsonl"),
        paged=bool(args.get("cursor") or args.get("back")),
    )


def jobs_to_json(views: Sequence[queries.JobView]) -> list[dict[str, Any]]:
    """Return jobs as the JSON side answers them, with what only pages say beside."""
    now, stopping = clock.now(), reads.stopping(db.session(), [view.job.id for view in views])
    return [
        serialise.job_to_json(view, now=now)
        | {
            "reason_job_id": view.job.reason_job_id,
            "due_at": view.job.due_at,
            "estimated_seconds": view.job.estimated_seconds,
            "is_stopping": view.job.id in stopping,
        }
        for view in views
    ]


def _file_url(filters: Mapping[str, str], name: str) -> str:
    """Return the address of everything under *filters* as a file."""
    return f"{url_for('api_jobs.list_jobs')}?{urlencode({**filters, 'format': name})}"


def _pair(word: str) -> tuple[str, str]:
    key, _, value = word.partition(":")
    return (key, value) if key in _KEYS else ("", "")


def _page(visible: Any, query: JobsQuery, args: Mapping[str, str]) -> queries.JobPage:
    back = args.get("back")
    return queries.list_jobs(
        db.session(),
        services().redis,
        visible,
        queries.filter_of(query),
        limit=query.limit,
        cursor=back or args.get("cursor"),
        oldest_first=query.sort == "oldest",
        back=bool(back),
    )


def _chips(filters: Mapping[str, str], counts: Mapping[JobStatus, int]) -> list[Chip]:
    others = {name: value for name, value in filters.items() if name != "status"}
    chosen = filters.get("status", "")
    everything = Chip("all jobs", "", "", url_of(others), not chosen)
    return [everything] + [
        Chip(
            status,
            status,
            _count(counts[status]),
            url_of(others | {"status": status}),
            chosen == status,
        )
        for status in _CHIPS
        if counts[status] or chosen == status
    ]


def _count(count: int) -> str:
    if count > reads.COUNT_LIMIT:
        return f"{reads.COUNT_LIMIT:,}+"
    return f"{count:,}"


def _active(filters: Mapping[str, str]) -> list[ActiveFilter]:
    return [
        ActiveFilter(
            "text" if name == "q" else name,
            value,
            url_of({other: kept for other, kept in filters.items() if other != name}),
        )
        for name, value in filters.items()
        if name != "sort"
    ]
