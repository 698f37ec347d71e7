"""Who opens a WebSocket: what a browser sends along proves nothing to pages of others."""

import pytest
from flask import Flask, Response
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from scheduler.states import Scope
from tests.webapp.conftest import MakePerson
from tests.webapp.streams.test_channel import HANDSHAKE
from webapp.connection import ENVIRON_KEY, Connection
from webapp.errors import Problem
from webapp.streams import home, opening
from webapp.streams.home import Streams


class Upgradable(Connection):
    can_upgrade = True

    def read(self, _: int) -> bytes:
        return b""


@pytest.mark.parametrize(
    ("headers", "is_ours"),
    [
        ({"Origin": "http://fairq.test:8080"}, True),
        ({"Origin": "http://FAIRQ.test:8080"}, True),
        ({"Origin": "https://fairq.test:8080"}, False),
        ({"Origin": "https://fairq.test:8080", "X-Forwarded-Proto": "https"}, True),
        ({"Origin": "http://fairq.test:8080", "X-Forwarded-Proto": "https"}, False),
        ({"Origin": "http://fairq.test"}, False),
        ({"Origin": "http://fairq.test:8080.evil.test"}, False),
        ({"Origin": "http://evil.test"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": ""}, False),
        ({}, False),
    ],
    ids=str,
)
def test_an_origin_is_ours_or_it_is_not(headers: dict[str, str], *, is_ours: bool) -> None:
    builder = EnvironBuilder(base_url="http://fairq.test:8080", headers=headers)

    assert opening.is_same_origin(Request(builder.get_environ())) is is_ours


@pytest.mark.parametrize(
    ("origin", "is_known"), [("http://localhost", True), ("http://evil.test", False), (None, False)]
)
def test_a_session_counts_on_pages_of_this_server_only(
    app: Flask, signed_in: MakePerson, origin: str | None, *, is_known: bool
) -> None:
    ann = signed_in("ann")
    cookie = ann.client.get_cookie("fairq_session")
    assert cookie is not None
    headers = {"Cookie": f"fairq_session={cookie.value}"}
    if origin is not None:
        headers["Origin"] = origin

    with app.test_request_context("/jobs/stream", headers=headers) as context:
        client = opening.client_present(context.request)

    assert (client is not None) is is_known


def test_a_token_in_a_header_counts_wherever_the_page_came_from(
    app: Flask, person: MakePerson
) -> None:
    ann = person("ann")
    headers = {"Authorization": f"Bearer {ann.token}", "Origin": "http://evil.test"}

    with app.test_request_context("/jobs/stream", headers=headers) as context:
        client = opening.client_present(context.request)

    assert client is not None
    assert (client.account.username, client.secret_hash is not None) == ("ann", True)


def test_a_token_that_may_not_read_is_refused_before_anything_opens(
    app: Flask, person: MakePerson
) -> None:
    ann = person("ann", scopes={Scope.SUBMIT})
    headers = {"Authorization": f"Bearer {ann.token}"}

    with (
        app.test_request_context("/jobs/stream", headers=headers) as context,
        pytest.raises(Problem) as refusal,
    ):
        opening.client_present(context.request)

    assert refusal.value.code == "insufficient_scope"


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({}, (101, None)),
        ({"Sec-WebSocket-Version": "7"}, (400, "bad_request")),
        ({"Authorization": "Bearer wrong"}, (401, "unauthenticated")),
        ({"Last-Event-ID": "x"}, (422, "validation_failed")),
    ],
    ids=str,
)
def test_what_is_wrong_is_told_before_protocols_are_switched(
    person: MakePerson, change: dict[str, str], answer: tuple[int, str | None]
) -> None:
    ann = person("ann")
    headers = {**HANDSHAKE, "Authorization": f"Bearer {ann.token}", **change}

    given = ann.get("/jobs/stream", headers=headers, environ_overrides={ENVIRON_KEY: Upgradable()})

    code = given.json["code"] if given.mimetype == "application/problem+json" else None
    assert (given.status_code, code) == answer
    assert ("Sec-WebSocket-Accept" in given.headers) == (answer[0] == 101)
    given.close()


def test_an_owner_one_may_not_see_is_told_before_protocols_are_switched(
    person: MakePerson,
) -> None:
    person("bob")

    answer = person("ann").get(
        "/jobs/stream?owner=bob",
        headers=HANDSHAKE,
        environ_overrides={ENVIRON_KEY: Upgradable()},
    )

    assert (answer.status_code, answer.json["code"]) == (422, "unknown_owner")


def test_a_server_that_cannot_upgrade_says_so(person: MakePerson) -> None:
    answer = person("ann").get("/jobs/stream", headers=HANDSHAKE)

    assert (answer.status_code, answer.json["code"]) == (400, "bad_request")


def test_other_routes_do_not_become_websockets(person: MakePerson) -> None:
    answer = person("ann").get("/me", headers=HANDSHAKE)

    assert (answer.status_code, answer.json["code"]) == (400, "bad_request")


def test_a_client_that_goes_as_its_stream_begins_is_forgotten(
    person: MakePerson, streams: Streams
) -> None:
    ann = person("ann")
    answer = ann.get("/jobs/stream", headers={"Accept": "text/event-stream"})
    assert streams.moves._outlets

    answer.close()

    assert streams.moves._outlets == {}
    assert not streams._taken.total()


def test_an_answer_that_switched_protocols_is_closed_like_any_other(
    app: Flask, person: MakePerson
) -> None:
    closed: list[bool] = []

    @app.after_request
    def note(response: Response) -> Response:
        response.call_on_close(lambda: closed.append(True))
        return response

    ann = person("ann")
    headers = {**HANDSHAKE, "Authorization": f"Bearer {ann.token}"}

    answer = ann.get("/jobs/stream", headers=headers, environ_overrides={ENVIRON_KEY: Upgradable()})
    answer.close()

    assert (answer.status_code, closed) == (101, [True])


def test_an_account_has_so_many_streams_at_a_time(
    person: MakePerson, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home, "PER_ACCOUNT", 1)
    ann = person("ann")
    headers = {"Accept": "text/event-stream"}

    first = ann.get("/jobs/stream", headers=headers)
    second = ann.get("/jobs/stream", headers=headers)
    first.close()
    third = ann.get("/jobs/stream", headers=headers)
    third.close()

    assert [one.status_code for one in (first, second, third)] == [200, 429, 200]
