"""From what is asked for to what is stored: whose the job is to be, and all it says.

Shared by whoever takes submissions in: the web server, and programs in their own transaction.
"""

from collections.abc import Collection, Mapping

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from scheduler import outbound
from scheduler.errors import CallbackPrivate, UnknownOwner
from scheduler.job_request import JobRequest
from scheduler.models import User
from scheduler.states import Role, class_of
from scheduler.store.submission import Submission


def find_owners(session: Session, names: Collection[str]) -> dict[str, int]:
    """Return who of *names* may own jobs, by their names in lower case."""
    name = func.lower(User.username)
    wanted = {each.lower() for each in names}
    rows = session.execute(
        select(name, User.id).where(name.in_(wanted), User.active, User.role != Role.VIEWER)
    )
    return dict(rows.all())


def owner_among(known: Mapping[str, int], name: str, *, path: str = "owner") -> int:
    """Return the account of *name*. Raises UnknownOwner if it is none of *known*."""
    try:
        return known[name.lower()]
    except KeyError:
        raise UnknownOwner(name, path=path) from None


def check_callback(url: str | None, *, path: str = "callback_url", allow_private: bool) -> None:
    """Refuse what the courier would: addresses that are private whoever resolves them."""
    if url is not None and not allow_private and outbound.is_private(url):
        raise CallbackPrivate(path=path)


def submission_of(
    one: JobRequest, *, idempotency_key: str | None = None, request_id: str | None = None
) -> Submission:
    """Return what a request asks for. A key is for a job without an id of its own."""
    needs, retry = one.resource_requirements, one.retry_config
    return Submission(
        type=one.type,
        job_id=one.job_id,
        payload=one.payload,
        description=one.description,
        tags=tuple(one.tags),
        priority_level=one.priority,
        job_class=class_of(one.priority),
        depends_on=tuple((parent.job_id, parent.when) for parent in one.depends_on),
        cpu_units=one.cpu_units(),
        memory_mb=None if needs is None else needs.memory_mb,
        retry_config=None if retry is None else retry.model_dump(exclude_unset=True),
        timeout_seconds=one.timeout_seconds,
        estimated_seconds=one.estimated_seconds,
        run_at=one.run_at,
        delay_seconds=one.delay_seconds,
        start_by=one.start_by,
        executor=one.executor,
        callback_url=one.callback_url,
        idempotency_key=idempotency_key if one.job_id is None else None,
        request_id=request_id,
    )
