"""What is refused over HTTP is refused in a transaction of a program's own, in the same words."""

from typing import Any

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from scheduler.enqueue import enqueue
from scheduler.errors import SubmissionRefused
from scheduler.job_request import JobRequest
from scheduler.models import Job
from scheduler.settings import Settings
from tests.factories import make_policy, make_submission, make_type, make_worker
from tests.webapp.conftest import MakePerson

SCHEMA = {
    "type": "object",
    "properties": {"rows": {"type": "integer"}},
    "additionalProperties": False,
}

REFUSED: dict[str, dict[str, Any]] = {
    "no such type": {"type": "dance"},
    "a payload of another shape": {"type": "strict", "payload": {"rows": "many"}},
    "no such field": {"colour": "red"},
    "a text for a number": {"timeout_seconds": "60"},
    "a job that only POST /jobs/bulk makes": {"type": "bulk", "payload": {"action": "cancel"}},
    "a time before all clocks": {"start_by": "0001-01-01T00:00:00+14:00"},
    "two starts": {"run_at": "2100-01-01T00:00:00Z", "delay_seconds": 1},
    "no such class": {"priority": "urgent"},
    "a null character": {"description": "\0"},
    "too deep": {"payload": {"a": [[[]] * 2] * 2} | {"b": eval("[" * 60 + "]" * 60)}},  # noqa: S307 - sixty lists
    "no such owner": {"owner": "nobody"},
    "no name at all": {"owner": "a b"},
    "too large for all workers": {"resource_requirements": {"cpu_units": 9}},
    "longer than its type allows": {"type": "strict", "timeout_seconds": 61},
    "somebody who does not run it": {"executor": "pull"},
    "a parent that is not there": {"depends_on": ["nobody"]},
    "itself as a parent": {"job_id": "me", "depends_on": ["me"]},
    "other content": {"job_id": "known", "description": "another"},
    "a private callback": {"callback_url": "http://127.0.0.1/"},
    "a callback that is none": {"callback_url": "ftp://example.org/"},
}


@pytest.fixture
def asked(
    person: MakePerson, store: Session, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Ask for a job both ways; return code, message and path of each refusal."""
    monkeypatch.setenv("REDIS_URL", settings.redis_url)
    make_worker(store)
    make_type(store, "strict", payload_schema=SCHEMA, max_timeout_seconds=60)
    olga = person("olga", "operator")
    store.commit()
    assert olga.post("/jobs", {"type": "simulate", "job_id": "known"}).status_code == 201

    def ask(fields: dict[str, Any]) -> tuple[Any, Any]:
        wanted = {"type": "simulate", "payload": {}, "owner": "olga"} | fields
        over_http = olga.post("/jobs", wanted).json
        errors = over_http.get("errors", [{"path": ""}])
        with pytest.raises(SubmissionRefused) as refused:
            enqueue(store, **wanted)
        here = refused.value
        return (
            (over_http["code"], over_http["detail"], errors[0]["path"]),
            (here.code, str(here), here.path),
        )

    return ask


@pytest.mark.parametrize("fields", REFUSED.values(), ids=REFUSED)
def test_a_submission_is_refused_alike(
    asked: Any, committed_engine: Engine, fields: dict[str, Any]
) -> None:
    over_http, here = asked(fields)

    assert here == over_http
    with Session(committed_engine) as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 1


def test_a_full_backlog_is_full_for_everybody(asked: Any, store: Session) -> None:
    rule = {"name": "few", "match": {"user": ["olga"]}, "effect": {"caps": {"backlog": 1}}}
    make_policy(store, rules=[rule])
    store.commit()

    over_http, here = asked({})

    assert here == over_http
    assert here[0] == "backlog_full"


def test_whatever_a_request_may_say_reaches_the_store() -> None:
    named = {"owner", "resource_requirements", "priority"}  # under other names there

    assert set(JobRequest.model_fields) - named <= set(make_submission().__dataclass_fields__)
