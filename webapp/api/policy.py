"""The policy, read and changed version by version."""

from decimal import Decimal
from typing import Any

from flask import Response

from scheduler.models import PolicyVersion
from scheduler.states import Role, Scope
from scheduler.store.policy import PolicyContent, current_policy, put_policy
from webapp import access
from webapp.answers import answer
from webapp.endpoints import Resource
from webapp.extensions import db
from webapp.schemas import PolicyAnswer, PolicyRequest
from webapp.services import services

bp = Resource("api_policy", __name__)


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
    return answer(_policy_to_json(current_policy(db.session())))


@bp.route_of(
    "PUT",
    "/policy",
    summary="Change the policy",
    scope=Scope.ADMIN,
    role=Role.ADMIN,
    body=PolicyRequest,
    answers={200: PolicyAnswer},
    refuses=("policy_conflict",),
)
def write_policy(body: PolicyRequest) -> Response:
    """Replaces the whole policy; refused unless it was made from the newest version."""
    session = db.session()
    made = put_policy(session, body.version, _content(body), author_id=access.require().id)
    answered = _policy_to_json(made)
    session.commit()
    services().announcer.wake()
    return answer(answered)


def _content(body: PolicyRequest) -> PolicyContent:
    cpu_units = body.capacity.cpu_units
    return PolicyContent(
        cap_cpu_units=None if cpu_units is None else Decimal(repr(cpu_units)),
        cap_memory_mb=body.capacity.memory_mb,
        rules=body.rules,
        types={name: rule.model_dump() for name, rule in body.types.items()},
        classes={str(name): rule.model_dump() for name, rule in body.classes.items()},
    )


def _policy_to_json(policy: PolicyVersion) -> dict[str, Any]:
    """What is read can be changed and written back as it is."""
    cpu_units = policy.cap_cpu_units
    return {
        "version": policy.version,
        "capacity": {
            "cpu_units": None if cpu_units is None else float(cpu_units),
            "memory_mb": policy.cap_memory_mb,
        },
        "rules": policy.rules,
        "types": policy.types,
        "classes": policy.classes,
    }
