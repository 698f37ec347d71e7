import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask_socketio import SocketIOTestClient
from redis import Redis
from sqlalchemy.orm import Session

from scheduler.events import Standing, write_standings
from scheduler.models import JobEvent, Token, User
from scheduler.states import CancelReason, JobStatus, Role, Scope
from tests.factories import NOON, make_job, make_worker
from tests.webapp.conftest import MakePerson, Person, add_token
from webapp import audience
from webapp import relay as relay_module
from webapp.extensions import db, socketio
from webapp.live import REPLAY_LIMIT, REPLAY_OVERLAP, relay_of
from webapp.relay import Relay
from webapp.services import services_of
from webapp.views import reads

Listen = Callable[..., SocketIOTestClient]


@pytest.fixture
def listen(app: Flask) -> Listen:
    def connect(person: Person, **auth: Any) -> SocketIOTestClient:
        client = socketio.test_client(
            app, auth={"token": person.token, **auth}, flask_test_client=app.test_client()
        )
        assert client.is_connected()
        if "seq" not in auth:
            client.get_received()
        return client

    return connect


@pytest.fixture
def relay(app: Flask) -> Relay:
    return relay_of(app)


def heard(client: SocketIOTestClient, event: str) -> list[dict[str, Any]]:
    """Return the bodies of what a client was told under a name since it was last asked."""
    return [one["args"][0] for one in client.get_received() if one["name"] == event]


def moved(owner: User, seq: int, status: JobStatus, **fields: Any) -> str:
    move = {
        "seq": seq,
        "job_id": "a",
        "owner_id": owner.id,
        "verb": "start",
        "status": status,
        "attempt": 1,
        "at": "2026-01-15T12:00:00Z",
        "data": None,
    }
    return json.dumps({"kind": "moves", "moves": [move | fields]})


def record(store: Session, owner: User, status: JobStatus, **fields: Any) -> JobEvent:
    """Make a job in *status* and the event that says so."""
    job = make_job(store, owner, status)
    defaults: dict[str, Any] = {"verb": "start", "attempt": 1, "at": NOON}
    event = JobEvent(job_id=job.id, owner_id=owner.id, status=status, **(defaults | fields))
    store.add(event)
    store.commit()
    return event


def test_a_session_or_a_token_that_may_read_is_let_in(
    app: Flask, store: Session, person: MakePerson, signed_in: MakePerson
) -> None:
    ann, bob = person("ann"), signed_in("bob")
    secrets = {
        "good": ann.token,
        "wrong": "fq_wrong",
        "other scope": add_token(store, ann.user, {Scope.SUBMIT}),
        "over": add_token(store, ann.user, {Scope.READ}, expires_at=NOON),
        "no text": 7,
        "none": None,
    }
    store.commit()

    let_in = {
        name: socketio.test_client(app, auth={"token": secret}).is_connected()
        for name, secret in secrets.items()
    }
    by_session = socketio.test_client(app, flask_test_client=bob.client)
    by_header = socketio.test_client(app, headers={"Authorization": f"Bearer {ann.token}"})

    assert let_in == dict.fromkeys(secrets, False) | {"good": True}
    assert by_session.is_connected()
    assert by_header.is_connected()


def test_pull_workers_are_called_that_wait_in_this_process(app: Flask, relay: Relay) -> None:
    desk = services_of(app).desk
    with desk.expecting(7) as seventh, desk.expecting(8) as eighth:
        relay.take(json.dumps({"kind": "offers", "asks": [6, 7]}), now=0)

        assert seventh.is_set()
        assert not eighth.is_set()


def test_changes_reach_their_owner_and_operators_who_asked_and_nobody_else(
    person: MakePerson, listen: Listen, relay: Relay
) -> None:
    ann, bob, olga = person("ann"), person("bob"), person("olga", Role.OPERATOR)
    mine, others = listen(ann), listen(bob)
    curious, everybody, own = listen(bob, all=True), listen(olga, all=True), listen(olga)

    relay.take(moved(ann.user, 5, JobStatus.RUNNING, data={"worker": "w"}), now=0)

    [change] = heard(mine, "job")
    assert change == {
        "job_id": "a",
        "owner": "ann",
        "seq": 5,
        "verb": "start",
        "status": "running",
        "attempt": 1,
        "at": "2026-01-15T12:00:00Z",
        "worker": "w",
    }
    assert heard(everybody, "job") == [change]
    assert heard(others, "job") == heard(curious, "job") == heard(own, "job") == []


def test_an_operator_hears_of_their_own_job_once(
    person: MakePerson, listen: Listen, relay: Relay
) -> None:
    olga = person("olga", Role.OPERATOR)
    client = listen(olga, all=True)

    relay.take(moved(olga.user, 5, JobStatus.COMPLETED), now=0)

    received = client.get_received()
    assert sorted(one["name"] for one in received) == ["job", "notification"]


def test_progress_is_coalesced_and_an_end_is_told_at_once(
    person: MakePerson, listen: Listen, relay: Relay
) -> None:
    ann = person("ann")
    client = listen(ann)
    told = {"kind": "progress", "owner_id": ann.user.id, "job_id": "a", "attempt": 1}

    for step in range(10):
        relay.take(json.dumps({**told, "fraction": step / 10, "message": "on it"}), now=step / 100)
    first = heard(client, "job")
    relay.flush(now=0.3)
    second = heard(client, "job")
    relay.take(moved(ann.user, 9, JobStatus.COMPLETED), now=0.31)

    assert [change["progress"]["fraction"] for change in first + second] == [0.0, 0.9]
    assert [change["status"] for change in heard(client, "job")] == ["completed"]


def test_an_end_notifies_the_owner_alone(person: MakePerson, listen: Listen, relay: Relay) -> None:
    ann, olga = person("ann"), person("olga", Role.OPERATOR)
    mine, everybody = listen(ann), listen(olga, all=True)

    relay.take(moved(ann.user, 6, JobStatus.FAILED, data={"error": "ValueError"}), now=0)
    by_hand = {"reason": CancelReason.BY_USER}
    relay.take(moved(ann.user, 7, JobStatus.CANCELLED, data=by_hand, job_id="b"), now=0)

    [note] = heard(mine, "notification")
    assert (note["job_id"], note["title"], note["message"]) == ("a", "a failed", "ValueError")
    assert heard(everybody, "notification") == []


def test_log_lines_reach_those_who_follow_the_job(
    store: Session, person: MakePerson, listen: Listen, relay: Relay
) -> None:
    ann, bob, olga = person("ann"), person("bob"), person("olga", Role.OPERATOR)
    job = make_job(store, ann.user, JobStatus.RUNNING)
    store.commit()
    clients = {name: listen(who) for name, who in (("ann", ann), ("bob", bob), ("olga", olga))}
    silent = listen(ann)
    wanted = {"job_id": job.job_id, "owner": "ann"}
    answers = {
        name: client.emit("follow", wanted, callback=True) for name, client in clients.items()
    }
    lines = [{"id": 1, "at": "2026-01-15T12:00:00Z", "level": "info", "message": "hello"}]
    told = {"kind": "log", "owner_id": ann.user.id, "job_id": job.job_id, "attempt": 1}

    relay.take(json.dumps({**told, "lines": lines}), now=0)

    assert answers == {
        "ann": {"ok": True},
        "bob": {"ok": False, "code": "not_found"},
        "olga": {"ok": True},
    }
    assert [line["lines"] for line in heard(clients["ann"], "log")] == [lines]
    assert [line["lines"] for line in heard(clients["olga"], "log")] == [lines]
    assert heard(clients["bob"], "log") == heard(silent, "log") == []

    clients["ann"].emit("unfollow", wanted, callback=True)
    relay.take(json.dumps({**told, "lines": lines}), now=0)
    assert heard(clients["ann"], "log") == []


def test_a_client_follows_so_many_logs(
    store: Session,
    person: MakePerson,
    listen: Listen,
    monkeypatch: pytest.MonkeyPatch,
    statements: list[str],
) -> None:
    monkeypatch.setattr(audience, "FOLLOWED_LIMIT", 2)
    ann = person("ann")
    names = [make_job(store, ann.user, job_id=name).job_id for name in "abc"]
    store.commit()
    client = listen(ann)

    def say(event: str, name: str) -> Any:
        return client.emit(event, {"job_id": name}, callback=True)

    answers = [say("follow", name) for name in [*names, "a"]]
    asked = len(statements)
    say("unfollow", "a")
    asked_to_unfollow = len(statements) - asked

    too_many = {"ok": False, "code": "too_many"}
    assert answers == [{"ok": True}, {"ok": True}, too_many, {"ok": True}]
    assert asked_to_unfollow == 0
    assert say("follow", "c") == {"ok": True}


def test_what_a_client_says_is_dealt_with_in_turn(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = app.extensions["socketio"].server

    assert (server.async_handlers, server.eio.async_handlers) == (False, False)


def test_lines_of_a_log_that_nobody_follows_cost_nothing(
    person: MakePerson, listen: Listen, relay: Relay, statements: list[str]
) -> None:
    ann = person("ann")
    listen(ann)
    before = len(statements)
    told = {"kind": "log", "owner_id": ann.user.id, "job_id": "a", "attempt": 1, "lines": []}

    relay.take(json.dumps(told), now=0)

    assert len(statements) == before


def many_moves(*owners: User) -> str:
    moves = [
        json.loads(moved(owner, seq, JobStatus.COMPLETED, job_id=f"j{seq}"))["moves"][0]
        for seq, owner in enumerate(owners, 1)
    ]
    return json.dumps({"kind": "moves", "moves": moves})


def test_too_many_moves_of_one_owner_are_told_as_one_reload(
    person: MakePerson, listen: Listen, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "MOVES_TOLD", 2)
    ann, bob, olga = person("ann"), person("bob"), person("olga", Role.OPERATOR)
    busy, other, everybody = listen(ann), listen(bob), listen(olga, all=True)

    relay.take(many_moves(ann.user, bob.user, ann.user, ann.user, bob.user), now=0)

    told = busy.get_received()
    assert [(one["name"], one["args"][0]) for one in told] == [("reload", {"seq": 4})]
    assert [change["seq"] for change in heard(other, "job")] == [2, 5]
    told = everybody.get_received()
    assert [(one["name"], one["args"][0]["seq"]) for one in told] == [
        ("reload", 4),
        ("job", 2),
        ("job", 5),
    ]


def test_others_have_their_turn_while_many_moves_are_told(
    person: MakePerson, listen: Listen, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "MOVES_AT_ONCE", 2)
    ann = person("ann")
    listen(ann)
    rests: list[float] = []
    monkeypatch.setattr(relay_module.gevent, "sleep", rests.append)

    relay.take(many_moves(*[ann.user] * 5), now=0)

    assert rests == [0, 0]


@pytest.mark.parametrize("wanted", [None, "user:1", ["all"], {"job_id": 7}, {"job_id": "\0"}, {}])
def test_following_nonsense_follows_nothing(
    person: MakePerson, listen: Listen, wanted: object
) -> None:
    client = listen(person("ann"))

    answer = client.emit("follow", wanted, callback=True)

    assert answer == {"ok": False, "code": "not_found"}


def test_a_client_that_was_away_is_told_what_it_missed_of_its_own(
    store: Session, person: MakePerson, listen: Listen
) -> None:
    ann, bob = person("ann"), person("bob")
    for _ in range(REPLAY_OVERLAP + 1):
        known = record(store, ann.user, JobStatus.RUNNING)
    record(store, bob.user, JobStatus.COMPLETED)
    missed = record(store, ann.user, JobStatus.COMPLETED, verb="succeed")

    received = listen(ann, seq=known.seq).get_received()

    changes = [one["args"][0] for one in received if one["name"] == "job"]
    notes = [one["args"][0] for one in received if one["name"] == "notification"]
    assert changes[-1]["seq"] == missed.seq
    assert min(change["seq"] for change in changes) > known.seq - REPLAY_OVERLAP
    assert {change["owner"] for change in changes} == {"ann"}
    assert [note["seq"] for note in notes] == [missed.seq]
    assert received[-1]["args"] == [{"state": "live"}]


def test_a_client_that_missed_too_much_is_told_to_load_again(
    store: Session, person: MakePerson, listen: Listen
) -> None:
    ann = person("ann")
    known = record(store, ann.user, JobStatus.RUNNING)
    store.add_all(
        JobEvent(
            job_id=known.job_id, owner_id=ann.user.id, at=NOON, verb="start",
            status=JobStatus.RUNNING, attempt=1,
        )
        for _ in range(REPLAY_LIMIT + 1)
    )  # fmt: skip
    store.commit()

    received = listen(ann, seq=known.seq).get_received()

    assert [one["name"] for one in received] == ["reload", "live"]
    assert received[0]["args"] == [{"seq": known.seq + REPLAY_LIMIT + 1}]


@pytest.mark.parametrize("seq", [None, "1", -1, True, 2**63, 1.5, []])
def test_a_number_that_is_none_replays_nothing(
    store: Session, person: MakePerson, listen: Listen, seq: object
) -> None:
    ann = person("ann")
    record(store, ann.user, JobStatus.COMPLETED)

    received = listen(ann, seq=seq).get_received()

    assert [one["name"] for one in received] == ["live"]


def test_a_busy_user_is_told_their_queue_every_second_until_it_is_empty(
    store: Session, redis_client: Redis, person: MakePerson, listen: Listen, relay: Relay
) -> None:
    ann, bob = person("ann"), person("bob")
    running = make_job(
        store, ann.user, JobStatus.RUNNING, progress_fraction=0.5, progress_message="half"
    )
    waiting = make_job(store, ann.user)
    store.commit()
    standing = Standing(3, "turn", "2 go first.", NOON, None)
    write_standings(redis_client, {ann.user.id: {waiting.id: standing}})
    mine, others = listen(ann), listen(bob)
    now = NOON + timedelta(seconds=30)

    relay.tick(now)

    [queue] = heard(mine, "queue")
    assert queue["at"] == "2026-01-15T12:00:30Z"
    assert queue["running"] == [
        {
            "job_id": running.job_id,
            "attempt": 1,
            "started_at": "2026-01-15T12:00:00Z",
            "elapsed_seconds": 30.0,
            "progress": {"fraction": 0.5, "message": "half"},
        }
    ]
    [place] = queue["waiting"]
    assert (place["job_id"], place["position"], place["message"]) == (
        waiting.job_id,
        3,
        "2 go first.",
    )
    assert {name: number for name, number in queue["counts"].items() if number} == {
        "running": 1,
        "ready": 1,
    }
    assert [one["running"] for one in heard(others, "queue")] == [[]]

    relay.tick(now)
    assert len(heard(mine, "queue")) == 1
    assert heard(others, "queue") == []


def test_a_queue_is_counted_as_far_as_it_is_worth_it(
    app: Flask,
    store: Session,
    person: MakePerson,
    listen: Listen,
    relay: Relay,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reads, "COUNT_LIMIT", 2)
    ann = person("ann")
    client = listen(ann)
    statuses = [JobStatus.READY] * 4 + [JobStatus.BLOCKED] * 2 + [JobStatus.COMPLETED]
    for status in statuses:
        make_job(store, ann.user, status)
    store.commit()

    relay.tick(NOON)

    [queue] = heard(client, "queue")
    counted = {name: count for name, count in queue["counts"].items() if count}
    assert (counted, queue["more"]) == ({"blocked": 2, "ready": 2}, ["ready"])
    with app.app_context():
        assert reads.unfinished_counts(db.session(), [ann.user.id])[ann.user.id]["ready"] == 3


def test_the_broker_is_asked_for_queues_without_a_connection_of_the_database(
    app: Flask,
    person: MakePerson,
    listen: Listen,
    relay: Relay,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with app.app_context():
        pool = db.engine.pool
    held: list[int] = []

    def read(_: Redis, owners: list[int]) -> dict[int, dict[int, Standing]]:
        held.append(pool.checkedout())  # type: ignore[attr-defined]  # of a queue pool
        return {owner: {} for owner in owners}

    monkeypatch.setattr(reads, "read_standings", read)
    listen(person("ann"))

    relay.tick(NOON)

    assert held == [0]


def test_what_moves_makes_a_user_busy_again(
    store: Session, person: MakePerson, listen: Listen, relay: Relay
) -> None:
    ann = person("ann")
    client = listen(ann)
    relay.tick(NOON)
    relay.tick(NOON)
    heard(client, "queue")
    make_job(store, ann.user, JobStatus.RUNNING, job_id="a")
    store.commit()

    relay.take(moved(ann.user, 3, JobStatus.RUNNING), now=0)
    relay.tick(NOON)

    assert [len(queue["running"]) for queue in heard(client, "queue")] == [1]


def test_the_fleet_is_told_to_operators_who_asked(
    store: Session, person: MakePerson, listen: Listen, relay: Relay
) -> None:
    ann, olga = person("ann"), person("olga", Role.OPERATOR)
    make_worker(store)
    make_job(store, ann.user, JobStatus.RUNNING)
    make_job(store, ann.user)
    store.commit()
    user, quiet, asking = listen(ann), listen(olga), listen(olga)
    refused = user.emit("fleet", callback=True)
    asking.emit("fleet", callback=True)

    relay.tick(NOON)

    [fleet] = heard(asking, "fleet")
    assert fleet["capacity"] == {"cpu_units": 8.0, "memory_mb": 4096, "slots": 8}
    assert fleet["reserved"] == {"cpu_units": 1.0, "memory_mb": 128, "slots": 1}
    assert fleet["depths"]["normal"] == 1
    assert [(one["name"], one["alive"], one["running"]) for one in fleet["workers"]] == [
        ("worker1@test", True, 1)
    ]
    assert refused == {"ok": False, "code": "forbidden"}
    assert heard(user, "fleet") == heard(quiet, "fleet") == []


def test_who_may_no_longer_listen_is_cut_off(
    app: Flask,
    store: Session,
    person: MakePerson,
    signed_in: MakePerson,
    listen: Listen,
    relay: Relay,
) -> None:
    people = {name: person(name, Role.OPERATOR) for name in ("gone", "demoted", "revoked", "kept")}
    clients = {name: listen(one) for name, one in people.items()}
    by_session = {name: signed_in(name) for name in ("changed", "steady")}
    clients |= {
        name: socketio.test_client(app, flask_test_client=one.client)
        for name, one in by_session.items()
    }
    store.get_one(User, people["gone"].user.id).active = False
    store.get_one(User, people["demoted"].user.id).role = Role.USER
    store.query(Token).filter_by(user_id=people["revoked"].user.id).delete()
    store.get_one(User, by_session["changed"].user.id).session_version += 1
    store.commit()

    relay.recheck(NOON)

    left = {name for name, client in clients.items() if client.is_connected()}
    assert left == {"kept", "steady"}


def test_nothing_is_told_after_a_client_has_gone(
    person: MakePerson, listen: Listen, relay: Relay
) -> None:
    ann = person("ann")
    client = listen(ann)
    client.disconnect()

    relay.take(moved(ann.user, 5, JobStatus.RUNNING), now=0)
    relay.tick(NOON)

    assert relay._audience.account_ids() == set()
