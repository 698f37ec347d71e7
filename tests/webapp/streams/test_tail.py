"""What a tail reads of a table while transactions come and go."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from scheduler.models import Job, User
from scheduler.states import JobStatus
from tests.factories import make_event, make_job, make_line, make_lines, make_type, make_user
from webapp.streams.growth import LINES, MOVES, Growth
from webapp.streams.outlet import Ending, Outlet
from webapp.streams.tail import EVERYBODY, Tail


@pytest.fixture
def reader(committed_engine: Engine) -> Iterator[Session]:
    """The tail's own connection: every look is a transaction, as in the relay."""
    with Session(committed_engine) as session:
        yield session


@pytest.fixture
def others(committed_engine: Engine) -> Iterator[Callable[[], Session]]:
    """Transactions of others, open for as long as a test likes."""
    sessions: list[Session] = []

    def begin() -> Session:
        sessions.append(Session(committed_engine))
        return sessions[-1]

    yield begin
    for session in sessions:
        session.close()


@pytest.fixture
def people(committed_engine: Engine) -> tuple[Job, Job]:
    """A job of Ann's and one of Bob's."""
    with Session(committed_engine, expire_on_commit=False) as session:
        make_type(session)
        owners: list[User] = [make_user(session, name) for name in ("ann", "bob")]
        ann, bob = (make_job(session, owner, JobStatus.RUNNING) for owner in owners)
        session.commit()
        return ann, bob


class Hearing:
    """An outlet that joined a tail, and what came through it."""

    def __init__(self, tail: Tail, reader: Session, key: int | None) -> None:
        self.tail = tail
        self.reader = reader
        self.outlet = Outlet(lambda: None)
        self.start = tail.join(reader, self.outlet, key)
        reader.rollback()

    def look(self) -> list[int]:
        """Look, and return the numbers of what was told."""
        self.tail.step(self.reader)
        self.reader.rollback()
        told = []
        while rows := self.outlet.take():
            told += [row.number for row in rows]
        return told


def test_everybody_hears_of_what_concerns_them_once(
    reader: Session, others: Callable[[], Session], people: tuple[Job, Job]
) -> None:
    ann, bob = people
    tail = Tail(MOVES)
    hers = Hearing(tail, reader, ann.owner_id)
    all_of_them = Hearing(tail, reader, EVERYBODY)
    writer = others()
    one, other = make_event(writer, ann).seq, make_event(writer, bob).seq
    writer.commit()

    heard = hers.look()

    assert (heard, hers.look()) == ([one], [])
    assert (all_of_them.look(), hers.outlet.ending) == ([one, other], None)


def test_what_was_there_before_is_not_told(
    reader: Session, others: Callable[[], Session], people: tuple[Job, Job]
) -> None:
    writer = others()
    before = make_event(writer, people[0]).seq
    writer.commit()

    hearing = Hearing(Tail(MOVES), reader, EVERYBODY)

    assert hearing.start == before
    assert hearing.look() == []


def test_a_row_waits_for_those_below_it_that_are_not_yet_committed(
    reader: Session, others: Callable[[], Session], people: tuple[Job, Job]
) -> None:
    hearing = Hearing(Tail(MOVES), reader, EVERYBODY)
    slow, quick = others(), others()
    first = make_event(slow, people[0]).seq
    second = make_event(quick, people[1]).seq
    quick.commit()

    held = hearing.look()
    slow.commit()

    assert held == []
    assert hearing.look() == [first, second]


def test_a_row_waits_no_longer_for_one_that_was_given_up(
    reader: Session, others: Callable[[], Session], people: tuple[Job, Job]
) -> None:
    hearing = Hearing(Tail(MOVES), reader, EVERYBODY)
    slow, quick = others(), others()
    make_event(slow, people[0])
    second = make_event(quick, people[1]).seq
    quick.commit()

    held = hearing.look()
    slow.rollback()

    assert held == []
    assert hearing.look() == [second]


def test_a_transaction_that_wrote_later_holds_nothing_up(
    reader: Session, others: Callable[[], Session], people: tuple[Job, Job]
) -> None:
    hearing = Hearing(Tail(MOVES), reader, EVERYBODY)
    slow, quick, late = others(), others(), others()
    make_event(slow, people[0])
    second = make_event(quick, people[1]).seq
    quick.commit()
    hearing.look()
    make_event(late, people[0])

    slow.rollback()

    assert hearing.look() == [second]


def test_a_tail_that_begins_amid_a_transaction_waits_for_its_end(
    reader: Session, others: Callable[[], Session], people: tuple[Job, Job]
) -> None:
    slow, quick = others(), others()
    make_event(slow, people[0])
    make_event(quick, people[1])
    quick.commit()
    tail = Tail(MOVES)

    too_early = Hearing(tail, reader, EVERYBODY)
    last = make_event(slow, people[0]).seq
    slow.commit()
    hearing = Hearing(tail, reader, EVERYBODY)

    assert (too_early.start, hearing.start) == (None, last)


def test_a_long_way_is_read_in_one_turn(
    reader: Session, others: Callable[[], Session], people: tuple[Job, Job]
) -> None:
    hearing = Hearing(Tail(LINES), reader, people[0].id)
    writer = others()
    numbers = [one.id for one in make_lines(writer, people[0], ["x"] * 3 * LINES.at_once)]
    writer.commit()

    assert hearing.look() == numbers


def test_nothing_is_lost_when_a_look_fails(
    reader: Session,
    others: Callable[[], Session],
    people: tuple[Job, Job],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hearing = Hearing(Tail(MOVES), reader, EVERYBODY)
    writer = others()
    number = make_event(writer, people[0]).seq
    writer.commit()
    read = type(MOVES).read

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(type(MOVES), "read", fail)
    with pytest.raises(ConnectionError):
        hearing.look()
    monkeypatch.setattr(type(MOVES), "read", read)

    assert hearing.look() == [number]


def test_who_has_left_is_put_nothing_any_more(
    reader: Session, others: Callable[[], Session], people: tuple[Job, Job]
) -> None:
    tail = Tail(MOVES)
    gone, there = (Hearing(tail, reader, EVERYBODY) for _ in range(2))
    tail.leave(gone.outlet, EVERYBODY)
    tail.leave(gone.outlet, EVERYBODY)
    writer = others()
    number = make_event(writer, people[0]).seq
    writer.commit()

    assert there.look() == [number]
    assert gone.outlet.take() == []


def test_a_bell_is_heard_by_a_tail_that_somebody_listens_to(reader: Session) -> None:
    tail = Tail(MOVES)
    outlet = Outlet(lambda: None)

    tail.ring()
    rung_for_nobody = tail._bell.is_set()
    tail.join(reader, outlet, EVERYBODY)
    tail.ring()
    tail.wait()

    assert not rung_for_nobody
    assert not tail._bell.is_set()


@pytest.mark.parametrize("growth", [MOVES, LINES], ids=["moves", "lines"])
def test_reading_a_table_does_not_count_as_writing_to_it(
    growth: Growth, reader: Session, others: Callable[[], Session], people: tuple[Job, Job]
) -> None:
    looking = others()
    growth.look(looking, 0)

    nobody = growth.writers(reader)
    writer = others()
    make_event(writer, people[0])
    make_line(writer, people[0])
    somebody = growth.writers(reader)
    writer.rollback()

    assert (len(nobody), len(somebody), len(growth.writers(reader))) == (0, 1, 0)


def test_a_row_that_cannot_be_read_ends_the_streams_that_would_hear_of_it_alone(
    reader: Session, others: Callable[[], Session], people: tuple[Job, Job]
) -> None:
    tail = Tail(LINES)
    hers, his = (Hearing(tail, reader, job.id) for job in people)
    writer = others()
    broken = make_line(writer, people[0]).id
    other = make_line(writer, people[1]).id
    year_before_one = text("UPDATE job_logs SET at = '0001-01-01 BC' WHERE id = :id")
    writer.execute(year_before_one, {"id": broken})
    writer.commit()

    assert his.look() == [other]

    assert (hers.outlet.ending, his.outlet.ending) == (Ending.OUTAGE, None)
    writer = others()
    another = make_line(writer, people[1]).id
    writer.commit()
    assert his.look() == [another]


def test_a_row_that_cannot_be_read_ends_the_streams_of_everybodys(
    reader: Session, others: Callable[[], Session], people: tuple[Job, Job]
) -> None:
    tail = Tail(MOVES)
    everybody = Hearing(tail, reader, EVERYBODY)
    his = Hearing(tail, reader, people[1].owner_id)
    writer = others()
    broken, other = make_event(writer, people[0]).seq, make_event(writer, people[1]).seq
    year_before_one = text("UPDATE job_events SET at = '0001-01-01 BC' WHERE seq = :seq")
    writer.execute(year_before_one, {"seq": broken})
    writer.commit()

    assert his.look() == [other]
    assert (everybody.outlet.ending, his.outlet.ending) == (Ending.OUTAGE, None)


def test_rows_wait_for_an_open_transaction_only_so_long(
    reader: Session, others: Callable[[], Session], people: tuple[Job, Job]
) -> None:
    hearing = Hearing(Tail(MOVES, timedelta(0)), reader, EVERYBODY)
    slow, quick = others(), others()
    make_event(slow, people[0])
    second = make_event(quick, people[1]).seq
    quick.commit()

    held = [hearing.look() for _ in range(2)]
    told = hearing.look()
    third = make_event(quick, people[1]).seq
    quick.commit()
    told_meanwhile = hearing.look()

    assert (held, told, told_meanwhile) == ([[], []], [second], [third])
    assert not hearing.outlet.has_missed
    slow.commit()
    assert hearing.look() == []
    assert hearing.outlet.has_missed
