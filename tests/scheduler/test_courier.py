"""Couriers: over real HTTP to a server of the test, on a real database."""

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from scheduler import courier, outbound
from scheduler.callback import MOST_TRIES, TIMEOUT, Call, Reply
from scheduler.courier import SENDERS, Courier, http_sender
from scheduler.models import Callback, CallbackDelivery
from scheduler.states import JobStatus
from scheduler.store import callbacks, work
from scheduler.store.callbacks import AT_ONCE_PER_OWNER, LEASE, rotate_secret, secret_of
from tests.factories import NOON, make_callback, make_job, make_user
from tests.racing import committed
from tests.readme import CALLBACKS, documented_check, snippets
from tests.scheduler.test_callback import make_call
from tests.services import eventually
from tests.site import Site, answer_dns

S = JobStatus
OK = Reply(1, status_code=200)
HOUR = timedelta(hours=1)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often, so that tests need not wait."""
    monkeypatch.setattr(courier, "PAUSE", timedelta(seconds=0.05))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give nobody much time to answer."""
    monkeypatch.setattr(courier, "TIMEOUT", timedelta(seconds=0.3))


class Desk:
    """Callbacks on a database, and what became of them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.owner = self.do(lambda session: make_user(session).id)

    def do(self, act: Callable[[Session], Any]) -> Any:
        return committed(self.engine, act)

    def add(self, url: str, *, owner: int | None = None, **columns: Any) -> int:
        """Leave what is to be told about a job that has ended."""

        def leave(session: Session) -> int:
            wanted = {"owner_id": owner or self.owner, "callback_url": url}
            job = make_job(session, make_user(session), S.COMPLETED, **wanted)
            return make_callback(session, job, **columns).id

        number: int = self.do(leave)
        return number

    def look(self, callback: int) -> Callback:
        found: Callback = self.do(lambda session: session.get_one(Callback, callback))
        return found

    def is_delivered(self, callback: int) -> bool:
        return self.look(callback).delivered_at is not None

    def log(self, callback: int) -> list[tuple[int | None, str | None]]:
        wanted = (
            select(CallbackDelivery.status_code, CallbackDelivery.error)
            .where(CallbackDelivery.callback_id == callback)
            .order_by(CallbackDelivery.id)
        )
        return [tuple(row) for row in self.do(lambda session: session.execute(wanted).all())]

    def pass_time(self, passed: timedelta) -> None:
        statement = text(
            "UPDATE callbacks SET due_at = due_at - :passed, taken_until = taken_until - :passed"
        )
        self.do(lambda session: session.execute(statement, {"passed": passed}))

    @contextmanager
    def running(
        self, send: Callable[[Call], Reply] | None = None, *, count: int = 1
    ) -> Iterator[list[Courier]]:
        """Run couriers while the block runs; they must end well and soon after."""
        couriers = [Courier(self.engine, send or http_sender(private=True)) for _ in range(count)]
        threads = [threading.Thread(target=one.run) for one in couriers]
        for thread in threads:
            thread.start()
        try:
            yield couriers
        finally:
            for one in couriers:
                one.stop()
            for thread in threads:
                thread.join(timeout=20)
            assert not any(thread.is_alive() for thread in threads)


@pytest.fixture
def desk(committed_engine: Engine, soon: None) -> Desk:
    return Desk(committed_engine)


def send(url: str, *, private: bool = True) -> Reply:
    return http_sender(private=private)(make_call(url=url))


# One call


def test_a_call_arrives_as_it_is_documented(desk: Desk, site: Site) -> None:
    def end(session: Session) -> None:
        owner = make_user(session, "ann")
        job = make_job(
            session, owner, S.RUNNING, job_id="nightly-7", callback_url=site.url("/done")
        )
        work.succeed(session, [work.Success(job.id, 1, {"answer": 42})])

    desk.do(end)
    with desk.running():
        eventually(lambda: desk.do(lambda s: s.scalar(select(Callback.delivered_at))))

    (asked,) = site.seen
    (example,) = snippets("json", CALLBACKS)
    body, documented = json.loads(asked.body), json.loads(example)
    assert (asked.method, asked.path) == ("POST", "/done")
    assert asked.headers["Content-Type"] == "application/json"
    assert asked.headers["User-Agent"] == "Fairq-Callback"
    assert asked.headers["Fairq-Delivery"] == body["delivery_id"]
    assert list(body) == list(documented)
    same = ("job_id", "owner", "type", "status", "reason", "result", "error", "attempt")
    assert {name: body[name] for name in same} == {name: documented[name] for name in same}


def test_the_documented_check_accepts_what_arrives_and_nothing_else(desk: Desk, site: Site) -> None:
    desk.add(site.url("/"))
    secret = desk.do(lambda session: secret_of(session, desk.owner)).secret
    with desk.running():
        eventually(lambda: site.seen)

    is_from_fairq = documented_check()
    headers, body = site.seen[0].headers, site.seen[0].body

    assert is_from_fairq(secret, headers, body)
    assert not is_from_fairq("fqs_another", headers, body)
    assert not is_from_fairq(secret, headers, body + b" ")
    later = headers | {"Fairq-Timestamp": str(int(headers["Fairq-Timestamp"]) + 1)}
    assert not is_from_fairq(secret, later, body)
    assert not is_from_fairq(secret, headers, body, tolerance=-1)


def test_both_secrets_pass_the_check_while_they_change(desk: Desk, site: Site) -> None:
    before = desk.do(lambda session: secret_of(session, desk.owner)).secret
    after = desk.do(lambda session: rotate_secret(session, desk.owner)).secret
    desk.add(site.url("/"))
    with desk.running():
        eventually(lambda: site.seen)

    (asked,) = site.seen
    is_from_fairq = documented_check()

    assert before != after
    assert is_from_fairq(before, asked.headers, asked.body)
    assert is_from_fairq(after, asked.headers, asked.body)


@pytest.mark.parametrize("status", [200, 204, 302, 404, 503])
def test_the_status_of_the_answer_is_told(site: Site, status: int) -> None:
    site.answers["/"] = (status, {}, b"")

    reply = send(site.url("/"))

    assert (reply.status_code, reply.error, reply.hopeless) == (status, None, False)
    assert 0 <= reply.milliseconds < 60_000


def test_a_redirect_is_not_followed(site: Site) -> None:
    site.answers["/"] = (307, {"Location": site.url("/elsewhere")}, b"")

    assert send(site.url("/")).status_code == 307

    assert [asked.path for asked in site.seen] == ["/"]


def test_of_a_huge_answer_nothing_is_read(site: Site) -> None:
    assert send(site.url("/huge")).status_code == 200

    assert site.taken < 20_000_000


def test_a_body_that_drips_is_not_waited_for(site: Site) -> None:
    assert send(site.url("/drip")).is_success


@pytest.mark.parametrize("path", ["/silence", "/slowly"])
def test_an_answer_that_does_not_come_is_given_up_in_time(
    impatient: None, site: Site, path: str
) -> None:
    began = time.monotonic()

    reply = send(site.url(path))

    assert (reply.status_code, reply.error) == (None, "no answer within 0.3 s")
    assert 300 <= reply.milliseconds < 10_000
    assert time.monotonic() - began < 10


def _unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:{port}/", "ConnectError"),
        ("http://unknown.invalid/", "cannot be found"),
        ("http://127.0.0.1:99999/", ""),
        ("http://127.0.0.1:x/", "InvalidURL"),
        ("http://[/", ""),
        ("gopher://127.0.0.1/", "UnsupportedProtocol"),
        ("https://127.0.0.1:{port}/", "ConnectError"),
    ],
)
def test_what_cannot_be_reached_is_a_failed_try(url: str, said: str) -> None:
    reply = send(url.format(port=_unused_port()))

    assert reply.status_code is None
    assert said in (reply.error or "")
    assert not reply.hopeless


def test_a_server_that_speaks_no_tls_is_a_failed_try(site: Site) -> None:
    assert send(site.url("/").replace("http:", "https:")).error


def test_a_password_in_the_address_is_sent_and_not_told(site: Site) -> None:
    url = site.url("/").replace("127.0.0.1", "ann:secret@127.0.0.1")

    reply = send(url)
    failed = send(f"http://ann:secret@127.0.0.1:{_unused_port()}/")

    assert reply.is_success
    assert site.seen[0].headers["Authorization"].startswith("Basic ")
    assert "secret" not in (failed.error or "")


def test_what_went_wrong_can_be_kept_whatever_it_says(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Call) -> bytes:
        raise ValueError("a\0b\ud800\nc")

    monkeypatch.setattr(courier, "body", fail)
    callback = desk.add("http://example.org/")

    with desk.running():
        eventually(lambda: desk.log(callback))

    assert desk.log(callback) == [(None, "ValueError: a?b?")]


# Private addresses


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433"])
def test_a_private_address_is_refused_for_good(site: Site, host: str) -> None:
    reply = send(site.url("/", host=host), private=False)

    assert reply.hopeless
    assert reply.error == f"{host} is not a public address"
    assert site.seen == []


def test_a_name_that_leads_to_a_private_address_is_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_dns(monkeypatch, {"inside.test": [["1.1.1.1", "127.0.0.1"]]})

    assert send(site.url("/", host="inside.test"), private=False).hopeless
    assert site.seen == []


def test_a_name_that_changes_its_mind_is_called_where_it_was_checked(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbound, "is_public", lambda address: address == "127.0.0.1")
    asked = answer_dns(monkeypatch, {"rebind.test": [["127.0.0.1"], ["127.0.0.2"]]})

    assert send(site.url("/", host="rebind.test"), private=False).is_success
    assert asked == ["rebind.test"]


def test_what_is_refused_is_given_up_at_once(desk: Desk, site: Site) -> None:
    callback = desk.add(site.url("/"))

    with desk.running(http_sender(private=False)):
        eventually(lambda: desk.look(callback).gave_up_at)

    assert desk.log(callback) == [(None, "127.0.0.1 is not a public address")]


# Again and again


def test_a_lease_outlasts_the_longest_call_by_far() -> None:
    assert LEASE >= 3 * TIMEOUT


def test_what_failed_is_delivered_later_with_the_same_body(desk: Desk, site: Site) -> None:
    site.answers["/"] = [(500, {}, b""), (302, {"Location": "/x"}, b""), (200, {}, b"")]
    callback = desk.add(site.url("/"))

    with desk.running():
        eventually(lambda: len(desk.log(callback)) == 1)
        assert desk.look(callback).due_at
        desk.pass_time(HOUR)
        eventually(lambda: len(desk.log(callback)) == 2)
        desk.pass_time(HOUR)
        eventually(lambda: desk.is_delivered(callback))

    assert desk.log(callback) == [(500, None), (302, None), (200, None)]
    assert len({asked.body for asked in site.seen}) == 1
    assert len({asked.headers["Fairq-Delivery"] for asked in site.seen}) == 1


def test_what_never_arrives_is_given_up_in_the_end(desk: Desk) -> None:
    callback = desk.add(f"http://127.0.0.1:{_unused_port()}/", tries=MOST_TRIES - 1)

    with desk.running():
        eventually(lambda: desk.look(callback).gave_up_at)

    assert desk.look(callback).tries == MOST_TRIES


def test_a_courier_that_dies_before_it_notes_loses_nothing(desk: Desk, site: Site) -> None:
    callback = desk.add(site.url("/"))
    never = threading.Event()

    def die(_: Call) -> Reply:
        never.wait()
        return OK

    Courier(desk.engine, die).carry()
    with desk.running():
        desk.pass_time(LEASE - timedelta(seconds=20))
        others = desk.add(site.url("/others"))
        eventually(lambda: desk.is_delivered(others))
        while_it_is_taken = [asked.path for asked in site.seen]
        desk.pass_time(LEASE)
        eventually(lambda: desk.is_delivered(callback))
    never.set()

    assert while_it_is_taken == ["/others"]
    assert [asked.path for asked in site.seen] == ["/others", "/"]
    assert desk.look(callback).tries == 2


def test_couriers_side_by_side_deliver_each_callback_once(desk: Desk, site: Site) -> None:
    made = [desk.add(site.url("/")) for _ in range(40)]

    with desk.running(count=3):
        eventually(lambda: all(desk.is_delivered(callback) for callback in made))

    arrived = Counter(asked.headers["Fairq-Delivery"] for asked in site.seen)
    assert (len(arrived), set(arrived.values())) == (40, {1})


def test_a_receiver_that_does_not_answer_delays_nobody_else(desk: Desk, site: Site) -> None:
    gate = threading.Event()

    def slow_for_one(call: Call) -> Reply:
        if call.url.endswith("/silence"):
            gate.wait()
        return OK

    stuck = [desk.add(site.url("/silence")) for _ in range(3 * SENDERS)]
    other = desk.do(lambda session: make_user(session).id)
    with ExitStack() as stack:
        stack.enter_context(desk.running(slow_for_one))
        stack.callback(gate.set)
        later = [desk.add(site.url("/"), owner=other) for _ in range(20)]
        eventually(lambda: all(desk.is_delivered(callback) for callback in later))

        on_the_way = [desk.look(callback).tries for callback in stuck]
        assert sum(on_the_way) == AT_ONCE_PER_OWNER < SENDERS


def test_a_job_without_callbacks_costs_the_outside_nothing(desk: Desk, site: Site) -> None:
    def end(session: Session) -> None:
        job = make_job(session, make_user(session), S.RUNNING)
        work.succeed(session, [work.Success(job.id, 1, None)])

    desk.do(end)
    marker = desk.add(site.url("/"))
    with desk.running():
        eventually(lambda: desk.is_delivered(marker))

    assert len(site.seen) == 1


# The loop


def test_a_courier_goes_on_when_the_database_is_back(
    desk: Desk, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, away = callbacks.take, threading.Event()
    tries: list[float] = []

    def take(session: Session, *, limit: int) -> list[Call]:
        if not away.is_set():
            tries.append(time.monotonic())
            raise OperationalError("take", {}, Exception("gone"))
        return real(session, limit=limit)

    monkeypatch.setattr(callbacks, "take", take)
    callback = desk.add(site.url("/"))
    with desk.running():
        eventually(lambda: len(tries) >= 3)
        away.set()
        eventually(lambda: desk.is_delivered(callback))


def test_what_came_back_while_the_database_was_away_is_noted_once_it_is_there(
    desk: Desk, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, fails = callbacks.note, [OperationalError("note", {}, Exception("gone"))] * 2

    def note(*arguments: Any, **more: Any) -> bool:
        if fails:
            raise fails.pop()
        return real(*arguments, **more)

    monkeypatch.setattr(callbacks, "note", note)
    callback = desk.add(site.url("/"))
    with desk.running():
        eventually(lambda: desk.is_delivered(callback))

    assert len(site.seen) == 1


def test_a_courier_survives_what_nobody_thought_of(
    desk: Desk, site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, surprises = callbacks.take, [ZeroDivisionError("surprise")]

    def take(session: Session, *, limit: int) -> list[Call]:
        if surprises:
            raise surprises.pop()
        return real(session, limit=limit)

    monkeypatch.setattr(callbacks, "take", take)
    callback = desk.add(site.url("/"))
    with desk.running():
        eventually(lambda: desk.is_delivered(callback))

    assert "surprise" in caplog.text


def test_a_courier_that_is_stopped_notes_what_is_just_coming_back(desk: Desk, site: Site) -> None:
    gate, begun = threading.Event(), threading.Event()

    def send_slowly(_: Call) -> Reply:
        begun.set()
        gate.wait()
        return OK

    callback = desk.add(site.url("/"))
    with desk.running(send_slowly) as (one,):
        assert begun.wait(20)
        one.stop()
        gate.set()

    assert desk.is_delivered(callback)


def test_a_courier_that_is_stopped_waits_for_nobody_for_long(
    desk: Desk, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "FINISHING", timedelta(seconds=0.1))
    gate, begun = threading.Event(), threading.Event()

    def hang(_: Call) -> Reply:
        begun.set()
        gate.wait()
        return OK

    callback = desk.add(site.url("/"))
    with desk.running(hang):
        assert begun.wait(20)

    assert desk.look(callback).taken_until
    gate.set()


def test_stopping_is_safe_before_running_and_twice(desk: Desk) -> None:
    one = Courier(desk.engine, lambda _: OK)
    desk.add("http://example.org/", due_at=NOON)

    one.stop()
    one.stop()
    one.run()

    assert desk.do(lambda s: s.scalars(select(Callback.tries)).all()) == [0]
