"""The stream of changes: what a client is told, from which number on, and why it ends."""

from collections.abc import Callable
from datetime import timedelta

import gevent
import pytest
from flask import Flask
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from scheduler import clock
from scheduler.models import Job, JobEvent, Token, User
from scheduler.states import DISCARD, JobStatus, Role
from tests.factories import MINUTE, make_event, make_events
from tests.webapp.conftest import MakePerson
from tests.webapp.streams.conftest import EVENTS, Listen, Listener
from tests.webapp.streams.events import comments
from webapp.live import relay_of
from webapp.streams import stream as stream_module
from webapp.streams.growth import Growth
from webapp.streams.home import Streams
from webapp.streams.outlet import OUTLET_BYTES

JobOf = Callable[..., Job]
Move = Callable[..., int]
Look = Callable[[], None]


LARGE = {"error": "x" * 100_000}
MORE_THAN_IS_HELD = OUTLET_BYTES // 100_000 + 2


def started(listener: Listener) -> Listener:
    """Read a stream until it is live."""
    listener.until("live")
    return listener


def seqs(events: list[object]) -> list[int]:
    return [event.data["seq"] for event in events if event.name == "job"]  # type: ignore[attr-defined]  # events


def test_a_change_is_told_with_its_number_as_id(
    person: MakePerson, listen: Listen, job_of: JobOf, move: Move, look: Look
) -> None:
    ann = person("ann")
    job = job_of(ann.user, job_id="a")
    listener = started(listen(ann))

    number = move(job, data={"worker": "w", "pid": 7})
    look()

    event = listener.next()
    assert (event.name, event.id) == ("job", number)
    assert event.data == {
        "job_id": "a",
        "owner": "ann",
        "seq": number,
        "verb": "start",
        "status": "running",
        "attempt": 1,
        "at": "2026-01-15T12:00:00Z",
        "worker": "w",
    }


def test_a_stream_without_a_number_starts_now(
    person: MakePerson, listen: Listen, job_of: JobOf, move: Move, look: Look
) -> None:
    ann = person("ann")
    job = job_of(ann.user)
    before = move(job)

    listener = listen(ann)
    [live] = listener.until("live")
    after = move(job)
    look()

    assert (live.data, live.id) == ({"seq": before}, before)
    assert listener.next().id == after


def test_a_stream_tells_what_happens_once_it_has_begun_to_answer(
    person: MakePerson, listen: Listen, job_of: JobOf, move: Move, look: Look
) -> None:
    ann = person("ann")
    job = job_of(ann.user)
    listener = listen(ann)

    number = move(job)
    look()

    assert listener.until("job")[-1].id == number


@pytest.mark.parametrize(
    ("role", "owner", "hears"),
    [
        (Role.USER, None, ["mine"]),
        (Role.USER, "asker", ["mine"]),
        (Role.OPERATOR, None, ["mine", "theirs"]),
        (Role.OPERATOR, "OTHER", ["theirs"]),
        (Role.OPERATOR, "asker", ["mine"]),
    ],
)
def test_changes_are_told_to_who_may_see_the_job(
    person: MakePerson,
    listen: Listen,
    job_of: JobOf,
    move: Move,
    look: Look,
    role: Role,
    owner: str | None,
    hears: list[str],
) -> None:
    asker, other = person("asker", role), person("other")
    jobs = [job_of(asker.user, job_id="mine"), job_of(other.user, job_id="theirs")]
    query = "" if owner is None else f"?owner={owner}"
    missed = [move(job) for job in jobs]
    live = started(listen(asker, f"/jobs/stream{query}"))
    resumed = listen(asker, f"/jobs/stream{query}", after=0)

    for job in jobs:
        move(job)
    look()

    assert missed
    assert [event.data["job_id"] for event in live.take(len(hears))] == hears
    caught_up = resumed.take(2 * len(hears))
    assert [event.data["job_id"] for event in caught_up] == hears + hears


def test_what_becomes_of_dead_letters_is_told_to_their_owner_alone(
    person: MakePerson, listen: Listen, job_of: JobOf, look: Look
) -> None:
    ann, bob = person("ann"), person("bob")
    for name in ("kept", "gone"):
        job_of(ann.user, JobStatus.FAILED, job_id=name)
    job_of(bob.user, JobStatus.FAILED, job_id="bobs")
    anns, bobs = started(listen(ann)), started(listen(bob))

    for who, act, job_id in ((ann, "retry", "kept"), (ann, "discard", "gone")):
        assert who.post(f"/dead-letters/{act}", {"job_ids": [job_id]}).status_code == 200
    bob.post("/dead-letters/discard", {"job_ids": ["bobs"]})
    look()

    told = [(event.data["job_id"], event.data["verb"]) for event in anns.take(2)]
    assert told == [("kept", "run_again"), ("gone", DISCARD)]
    assert bobs.next().data["job_id"] == "bobs"


@pytest.mark.parametrize(
    ("role", "owner"), [(Role.USER, "other"), (Role.USER, "nobody"), (Role.OPERATOR, "nobody")]
)
def test_an_owner_who_cannot_be_seen_is_unknown(person: MakePerson, role: Role, owner: str) -> None:
    person("other")

    answer = person("asker", role).get(f"/jobs/stream?owner={owner}", headers={"Accept": EVENTS})

    assert (answer.status_code, answer.json["code"]) == (422, "unknown_owner")


def test_what_was_missed_is_told_in_pages_and_then_what_happens(
    person: MakePerson,
    listen: Listen,
    job_of: JobOf,
    store: Session,
    move: Move,
    look: Look,
    streams: Streams,
    statements: list[str],
) -> None:
    ann = person("ann")
    job = job_of(ann.user)
    known = move(job, at=clock.now())
    missed = [one.seq for one in make_events(store, job, streams.moves.growth.at_once + 1)]
    store.commit()
    listener = listen(ann, after=known)

    *caught_up, live = listener.until("live")
    number = move(job)
    look()

    assert seqs(caught_up) == missed
    assert live.id == missed[-1]
    assert listener.next().id == number
    reads = [one for one in statements if "job_events.verb" in one and "LIMIT" in one]
    assert len(reads) >= 2


@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_nothing_is_lost_or_doubled_around_a_transaction_held_open(
    person: MakePerson,
    listen: Listen,
    job_of: JobOf,
    move: Move,
    look: Look,
    committed_engine: Engine,
    ends: str,
) -> None:
    """Its number is taken first and committed last, while one client listens and others come."""
    ann = person("ann")
    job = job_of(ann.user)
    known = move(job, at=clock.now())
    live = started(listen(ann))
    with Session(committed_engine) as slow:
        held_open = make_event(slow, job).seq
        second = move(job)
        look()
        came_now, came_back = started(listen(ann)), listen(ann, after=known)
        assert came_back.until("live")[0].name == "live"  # the second has yet to be told
        third = move(job, at=clock.now())
        look()
        getattr(slow, ends)()
    fourth = move(job)
    look()
    knew_all_but_the_last = listen(ann, after=third)

    expected = [held_open] * (ends == "commit") + [second, third, fourth]
    assert [one.id for one in live.take(len(expected))] == expected
    assert [one.id for one in came_now.take(len(expected))] == expected
    assert [one.id for one in came_back.take(len(expected))] == expected
    assert seqs(knew_all_but_the_last.until("live")) == [fourth]


def test_a_client_may_know_more_than_this_process_has_read(
    person: MakePerson, listen: Listen, job_of: JobOf, move: Move, look: Look
) -> None:
    ann = person("ann")
    job = job_of(ann.user)
    started(listen(ann))
    known = move(job, at=clock.now())  # another web process told it

    listener = listen(ann, after=known)

    assert listener.next().name == "live"
    number = move(job)
    look()
    assert listener.next().id == number


def test_a_number_that_no_event_has_is_no_place_to_resume(
    person: MakePerson, listen: Listen, job_of: JobOf, move: Move, look: Look
) -> None:
    ann = person("ann")
    job = job_of(ann.user)
    newest = move(job)

    listener = listen(ann, after=newest + 1000)
    reload, live = listener.until("live")
    number = move(job)
    look()

    assert (reload.name, reload.data, reload.id) == ("reload", {"seq": newest}, newest)
    assert live.id == newest
    assert listener.next().id == number


def test_an_event_as_old_as_what_may_be_deleted_is_no_place_to_resume(
    app: Flask,
    person: MakePerson,
    listen: Listen,
    job_of: JobOf,
    move: Move,
) -> None:
    ann = person("ann")
    job = job_of(ann.user)
    kept = app.extensions["fairq"].settings.keep_finished
    old, young = (move(job, at=clock.now() - kept + age) for age in (-MINUTE, MINUTE))

    assert listen(ann, after=old).next().name == "reload"
    assert listen(ann, after=young).next().name == "live"


def test_more_than_is_worth_telling_is_to_be_loaded(
    person: MakePerson,
    listen: Listen,
    job_of: JobOf,
    move: Move,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream_module, "RESUME_LIMIT", 2)
    ann, bob = person("ann"), person("bob")
    job, other = job_of(ann.user), job_of(bob.user)
    known = [move(job, at=clock.now()) for _ in range(4)]
    move(other)

    names = [[one.name for one in listen(ann, after=number).until("live")] for number in known[:2]]

    assert names == [["reload", "live"], ["job", "job", "live"]]


@pytest.mark.parametrize("wrong", ["x", "-1", "1.5", "²", str(2**63)])
def test_a_last_event_that_is_no_number_is_refused(person: MakePerson, wrong: str) -> None:
    headers = {"Accept": EVENTS, "Last-Event-ID": wrong}

    answer = person("ann").get("/jobs/stream", headers=headers)

    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
    assert [error["path"] for error in answer.json["errors"]] == ["Last-Event-ID"]


def test_an_empty_last_event_is_none(person: MakePerson) -> None:
    headers = {"Accept": EVENTS, "Last-Event-ID": ""}

    assert Listener(person("ann").get("/jobs/stream", headers=headers)).next().name == "live"


def test_an_answer_is_kept_by_nobody_on_its_way(person: MakePerson) -> None:
    answer = person("ann").get("/jobs/stream", headers={"Accept": EVENTS})

    assert answer.mimetype == EVENTS
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Accel-Buffering"] == "no"
    answer.close()


def test_who_asks_for_no_stream_reads_the_job_of_that_name(
    person: MakePerson, job_of: JobOf
) -> None:
    ann, bob = person("ann"), person("bob")
    job_of(ann.user, job_id="stream")

    assert ann.get("/jobs/stream").json["job_id"] == "stream"
    assert bob.get("/jobs/stream", headers={"Accept": "*/*"}).status_code == 404
    assert ann.client.get("/jobs/stream").status_code == 401


def test_a_silent_stream_says_now_and_then_that_it_is_there(
    person: MakePerson, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "KEEP_ALIVE", timedelta(milliseconds=1))

    listener = started(listen(person("ann")))

    assert next(comments(listener.answer.iter_encoded())) == "still here"


def test_a_client_that_does_not_keep_up_is_told_where_to_resume(
    person: MakePerson,
    listen: Listen,
    job_of: JobOf,
    move: Move,
    look: Look,
    store: Session,
) -> None:
    ann = person("ann")
    job = job_of(ann.user)
    listener = started(listen(ann))
    sent = move(job, at=clock.now())
    look()
    assert listener.next().id == sent

    make_events(store, job, MORE_THAN_IS_HELD, data=LARGE)
    store.commit()
    look()

    assert [(one.name, one.data) for one in listener.rest()] == [("resume", {"seq": sent})]
    back = listen(ann, after=sent)
    assert len(seqs(back.until("live"))) == MORE_THAN_IS_HELD


def test_a_client_that_is_cut_off_while_it_catches_up_resumes_where_it_was(
    person: MakePerson,
    listen: Listen,
    job_of: JobOf,
    move: Move,
    look: Look,
    streams: Streams,
    store: Session,
) -> None:
    ann = person("ann")
    job = job_of(ann.user)
    known = move(job, at=clock.now())
    missed = [one.seq for one in make_events(store, job, 2 * streams.moves.growth.at_once)]
    store.commit()
    listener = listen(ann, after=known)
    first = listener.next()

    streams.stop()
    *jobs, resume = [first, *listener.rest()]

    assert seqs(jobs) == missed[: len(jobs)]
    assert len(jobs) < len(missed)
    assert (resume.name, resume.data) == ("resume", {"seq": jobs[-1].id})


def test_a_process_that_stops_asks_its_clients_to_come_back(
    person: MakePerson, listen: Listen, job_of: JobOf, move: Move, streams: Streams
) -> None:
    ann = person("ann")
    number = move(job_of(ann.user))
    early = started(listen(ann))

    streams.stop()
    late = listen(ann)

    assert [(one.name, one.data) for one in early.rest()] == [("resume", {"seq": number})]
    assert [(one.name, one.data) for one in late.rest()] == [("resume", {"seq": None})]


def test_a_database_that_goes_away_asks_clients_to_come_back(
    person: MakePerson,
    listen: Listen,
    job_of: JobOf,
    move: Move,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ann = person("ann")
    known = move(job_of(ann.user), at=clock.now())
    listener = listen(ann, after=known)

    def fail(*_: object, **__: object) -> None:
        raise OperationalError("SELECT", {}, Exception("away"))

    monkeypatch.setattr(Growth, "look", fail)

    assert [(one.name, one.data) for one in listener.rest()] == [("resume", {"seq": known})]


def test_who_may_no_longer_listen_is_cut_off(
    app: Flask,
    store: Session,
    person: MakePerson,
    signed_in: MakePerson,
    listen: Listen,
) -> None:
    people = {name: person(name, Role.OPERATOR) for name in ("gone", "demoted", "revoked", "kept")}
    people |= {name: signed_in(name) for name in ("changed", "steady")}
    listeners = {name: started(listen(one)) for name, one in people.items()}
    token = store.query(Token).filter_by(user_id=people["revoked"].user.id).one()
    store.get_one(User, people["gone"].user.id).active = False
    store.get_one(User, people["demoted"].user.id).role = Role.USER
    store.get_one(User, people["changed"].user.id).session_version += 1
    token.expires_at = clock.now()
    store.commit()

    relay_of(app).recheck(clock.now() + MINUTE)

    for name in ("gone", "demoted", "revoked", "changed"):
        assert listeners[name].rest() == [], name
    for name in ("kept", "steady"):
        reader = gevent.spawn(listeners[name].rest)
        gevent.sleep(0)
        assert not reader.ready(), name
        reader.kill()


def test_nothing_is_held_for_who_has_gone(
    person: MakePerson, listen: Listen, streams: Streams
) -> None:
    listener = started(listen(person("ann")))
    assert streams._outlets

    listener.answer.close()

    assert not streams._outlets
    assert not streams.moves._outlets
    assert not streams._audience.account_ids()


def test_messages_of_the_live_channel_make_the_tails_look(
    app: Flask, person: MakePerson, listen: Listen, streams: Streams
) -> None:
    started(listen(person("ann")))

    relay_of(app).take('{"kind": "moves", "moves": []}', now=0)

    assert streams.moves._bell.is_set()
    assert not streams.lines._bell.is_set()


def test_events_of_deleted_jobs_do_not_stop_a_stream(
    person: MakePerson,
    listen: Listen,
    job_of: JobOf,
    move: Move,
    look: Look,
    store: Session,
) -> None:
    ann = person("ann")
    job, other = job_of(ann.user, JobStatus.READY), job_of(ann.user)
    listener = started(listen(ann))
    gone, number = move(job), move(other)
    store.query(JobEvent).filter_by(seq=gone).delete()
    store.commit()

    look()

    assert listener.next().id == number


def test_one_who_has_missed_something_is_to_load_again(
    person: MakePerson, job_of: JobOf, move: Move, listen: Listen, look: Look, streams: Streams
) -> None:
    ann = person("ann")
    job = job_of(ann.user)
    listener = listen(ann)
    listener.until("live")
    number = move(job)
    look()

    for outlet in streams._outlets.values():
        outlet.miss()

    told = listener.until("reload")
    assert [(one.name, one.id) for one in told] == [("job", number), ("reload", number)]
    assert told[-1].data == {"seq": number}
