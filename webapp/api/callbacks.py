"""Callbacks: what became of them, sending one again, and the secret that signs them."""

from typing import Any

from flask import Response

from scheduler.states import Role, Scope
from scheduler.store.callbacks import Secret, rotate_secret, secret_of, send_again
from webapp import access, audit
from webapp.answers import answer, utc
from webapp.callbacks import callbacks_of
from webapp.endpoints import Resource
from webapp.errors import Problem
from webapp.extensions import db
from webapp.schemas.callbacks import CallbackAnswer, CallbackList, CallbackSecret
from webapp.schemas.groundwork import OwnerPage, OwnerQuery

bp = Resource("api_callbacks", __name__)


@bp.route_of(
    "GET",
    "/jobs/<job_id:job_id>/callbacks",
    summary="Read what was told about a job's ends",
    scope=Scope.READ,
    answers={200: CallbackList},
    query=OwnerPage,
    refuses=("invalid_cursor", "ambiguous_job_id"),
)
def read_callbacks(job_id: str, query: OwnerPage) -> Response:
    """One for each time the job ended, newest first, with the newest tries of all of them."""
    job = access.find_job(access.require(), job_id, query.owner)
    found, cursor = callbacks_of(db.session(), job, limit=query.limit, cursor=query.cursor)
    return answer({"callbacks": found, "next_cursor": cursor})


@bp.route_of(
    "POST",
    "/jobs/<job_id:job_id>/callbacks/retry",
    summary="Send the last callback of a job again",
    scope=Scope.SUBMIT,
    role=Role.USER,
    answers={200: CallbackAnswer},
    query=OwnerQuery,
    refuses=("nothing_to_send", "ambiguous_job_id"),
    audits="callbacks.retry",
)
def retry_callback(job_id: str, query: OwnerQuery) -> Response:
    """At once and with fresh tries, even if it was delivered; one on its way is left on it."""
    job = access.find_job(access.require(), job_id, query.owner)
    audit.act_on_job("callbacks.retry", job, send_again)
    found, _ = callbacks_of(db.session(), job, limit=1)
    if not found:
        raise Problem("nothing_to_send", "The job has not ended, or has no callback_url.")
    db.session.commit()
    return answer(found[0])


@bp.route_of(
    "GET",
    "/me/callback-secret",
    summary="Read the secret that signs your callbacks",
    scope=Scope.ADMIN,
    answers={200: CallbackSecret},
)
def read_callback_secret() -> Response:
    """It is made when it is first needed, and the same for all your jobs."""
    secret = secret_of(db.session(), access.require().id)
    db.session.commit()
    return answer(_secret_to_json(secret))


@bp.route_of(
    "POST",
    "/me/callback-secret",
    summary="Change the secret that signs your callbacks",
    scope=Scope.ADMIN,
    answers={200: CallbackSecret},
)
def change_callback_secret() -> Response:
    """The one before signs as well until `previous_until`."""
    secret = rotate_secret(db.session(), access.require().id)
    db.session.commit()
    return answer(_secret_to_json(secret))


def _secret_to_json(secret: Secret) -> dict[str, Any]:
    return {
        "secret": secret.secret,
        "created_at": utc(secret.made_at),
        "previous_until": utc(secret.previous_until),
    }
