"""The policy: read and changed version by version, tried out, and paused in part."""

from functools import partial
from typing import Any

from flask import Response

from scheduler.job_request import NAME_LIMIT
from scheduler.models import PolicyVersion
from scheduler.states import JobClass, Role, Scope
from scheduler.store.audit import record
from scheduler.store.policy import (
    content_of,
    current_policy,
    pause_class,
    pause_type,
    put_policy,
)
from webapp import access, policies
from webapp.answers import answer
from webapp.endpoints import NOTHING, Resource
from webapp.errors import not_found
from webapp.extensions import db
from webapp.schemas.groundwork import Page
from webapp.schemas.policy import (
    PauseAnswer,
    PolicyAnswer,
    PolicyDraft,
    PolicyPreview,
    PolicyRequest,
    PolicyVersionList,
)
from webapp.services import services

bp = Resource("api_policy", __name__)

_pauses = partial(
    bp.route_of,
    "POST",
    scope=Scope.ADMIN,
    role=Role.OPERATOR,
    answers={200: PauseAnswer},
    refuses=("policy_conflict",),
)


@bp.route_of(
    "GET",
    "/policy",
    summary="Read the policy",
    scope=Scope.ADMIN,
    role=Role.ADMIN,
    answers={200: PolicyAnswer},
)
def read_policy() -> Response:
    """The version that applies."""
    return answer(policies.policy_to_json(current_policy(db.session())))


@bp.route_of(
    "PUT",
    "/policy",
    summary="Change the policy",
    scope=Scope.ADMIN,
    role=Role.ADMIN,
    body=PolicyRequest,
    answers={200: PolicyAnswer},
    refuses=("policy_conflict",),
    audits="policy.change",
)
def write_policy(body: PolicyRequest) -> Response:
    """Replaces the whole policy; refused unless it was made from the newest version."""
    session = db.session()
    policies.check_names(session, body.rules)
    content, before = policies.content_from(body), content_of(current_policy(session))
    made = put_policy(session, body.version, content, author_id=access.require().id)
    told = {"version": made.version, "changes": policies.changes(before, content)}
    record(session, access.actor(), "policy.change", "policy", told)
    return _answer_and_wake(policies.policy_to_json(made))


@bp.route_of(
    "GET",
    "/policy/versions",
    summary="List the versions of the policy",
    scope=Scope.ADMIN,
    role=Role.ADMIN,
    query=Page,
    answers={200: PolicyVersionList},
    refuses=("invalid_cursor",),
)
def list_policy_versions(query: Page) -> Response:
    """Who changed what and when, newest first."""
    versions, cursor = policies.policy_versions(
        db.session(), limit=query.limit, cursor=query.cursor
    )
    return answer({"versions": versions, "next_cursor": cursor})


@bp.route_of(
    "POST",
    "/policy/preview",
    summary="Try a policy out",
    scope=Scope.READ,
    role=Role.OPERATOR,
    body=PolicyDraft,
    answers={200: PolicyPreview},
    audits=NOTHING,
)
def preview_policy(body: PolicyDraft) -> Response:
    """The next 50 starts as they are going to be, and as they would be; nothing is changed.

    What is left out of the body is as it is now. Nobody new arrives in a preview, and jobs take as
    long as expected.
    """
    policies.check_names(db.session(), body.rules)
    db.session.rollback()  # its connection is not held while another one reads
    return answer(policies.preview(db.engine, body))


@_pauses("/queues/<name>/pause", summary="Pause a class", audits="queues.pause")
def pause_queue(name: str) -> Response:
    """No more of its jobs are admitted; those admitted go on."""
    return _pause_class(name, paused=True)


@_pauses("/queues/<name>/resume", summary="Resume a class", audits="queues.resume")
def resume_queue(name: str) -> Response:
    """Its jobs are admitted again."""
    return _pause_class(name, paused=False)


@_pauses("/types/<name>/pause", summary="Pause a job type", audits="types.pause")
def pause_jobs_of_type(name: str) -> Response:
    """No more of its jobs are admitted; also for a type that no worker has registered yet."""
    return _pause_type(name, paused=True)


@_pauses("/types/<name>/resume", summary="Resume a job type", audits="types.resume")
def resume_jobs_of_type(name: str) -> Response:
    """Its jobs are admitted again."""
    return _pause_type(name, paused=False)


def _pause_class(name: str, *, paused: bool) -> Response:
    if name not in set(JobClass):
        raise not_found()
    author = access.require().id
    made = pause_class(db.session(), JobClass(name), paused=paused, author_id=author)
    return _answer_and_wake(_paused("queues", name, made, paused=paused))


def _pause_type(name: str, *, paused: bool) -> Response:
    if len(name) > NAME_LIMIT or not name.isprintable():
        raise not_found()
    author = access.require().id
    made = pause_type(db.session(), name, paused=paused, author_id=author)
    return _answer_and_wake(_paused("types", name, made, paused=paused))


def _paused(what: str, name: str, policy: PolicyVersion, *, paused: bool) -> dict[str, Any]:
    """Write down that it was done, and return what to answer."""
    action = f"{what}.pause" if paused else f"{what}.resume"
    told = {"policy_version": policy.version}
    record(db.session(), access.actor(), action, f"{what}/{name}", told)
    return {"name": name, "paused": paused, "policy_version": policy.version}


def _answer_and_wake(answered: dict[str, Any]) -> Response:
    """Commit, then let the scheduler look."""
    db.session.commit()
    services().announcer.wake()
    return answer(answered)
