"""Who changed what, when, from where."""

from flask import Response

from scheduler.states import Role, Scope
from webapp import audit
from webapp.answers import answer
from webapp.endpoints import Resource
from webapp.extensions import db
from webapp.schemas.audit import AuditList, AuditQuery

bp = Resource("api_audit", __name__)


@bp.route_of(
    "GET",
    "/audit",
    summary="Read the audit log",
    scope=Scope.ADMIN,
    role=Role.ADMIN,
    query=AuditQuery,
    answers={200: AuditList},
    refuses=("invalid_cursor",),
)
def read_audit(query: AuditQuery) -> Response:
    """What operators and administrators changed, here or on the command line, newest first."""
    wanted = audit.Filter(query.actor, query.action, query.target, query.after, query.before)
    entries, cursor = audit.entries(db.session(), wanted, limit=query.limit, cursor=query.cursor)
    return answer({"entries": entries, "next_cursor": cursor})
