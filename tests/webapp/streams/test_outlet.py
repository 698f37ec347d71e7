"""What is held for one client, and how much."""

from datetime import timedelta

import gevent
import gevent.event
import pytest

from webapp.streams import outlet as outlets
from webapp.streams.growth import LINES, MOVES, Told
from webapp.streams.outlet import CHUNK_BYTES, OUTLET_BYTES, Ending, Outlet

SHORT = timedelta(milliseconds=1)
LONG = timedelta(seconds=30)


def told(number: int, size: int = 10) -> Told:
    return Told(number, 1, "job", b"x" * size)


def make_outlet() -> Outlet:
    return Outlet(lambda: None)


def test_what_was_put_comes_out_in_order() -> None:
    outlet = make_outlet()
    for number in range(3):
        outlet.put(told(number))

    assert [row.number for row in outlet.take()] == [0, 1, 2]
    assert outlet.take() == []


def test_a_chunk_is_bounded() -> None:
    outlet = make_outlet()
    for number in range(4):
        outlet.put(told(number, CHUNK_BYTES // 2))

    assert [len(outlet.take()) for _ in range(3)] == [2, 2, 0]


def test_a_client_that_does_not_keep_up_is_held_nothing_any_more() -> None:
    outlet = make_outlet()
    for number in range(OUTLET_BYTES // CHUNK_BYTES + 1):
        outlet.put(told(number, CHUNK_BYTES))

    outlet.put(told(99))

    assert outlet.ending is Ending.SLOW
    assert outlet.take() == []
    outlet.close()


def test_a_client_that_keeps_up_is_held_any_amount() -> None:
    outlet = make_outlet()
    for number in range(3 * OUTLET_BYTES // CHUNK_BYTES):
        outlet.put(told(number, CHUNK_BYTES))
        outlet.take()

    assert outlet.ending is None


def test_a_row_larger_than_everything_is_sent_all_the_same() -> None:
    outlet = make_outlet()

    outlet.put(told(1, 2 * OUTLET_BYTES))

    assert len(outlet.take()) == 1
    assert outlet.ending is None


@pytest.mark.parametrize(("growth", "row_bytes"), [(MOVES, 700), (LINES, 9000)])
def test_one_turn_of_a_tail_fits(growth: object, row_bytes: int) -> None:
    assert growth.at_once * row_bytes < OUTLET_BYTES  # type: ignore[attr-defined]  # either of two


def test_waiting_ends_when_something_is_put_and_when_it_is_over() -> None:
    outlet = make_outlet()

    quiet = outlet.wait(SHORT)
    gevent.spawn(outlet.put, told(1))
    put = outlet.wait(LONG)
    outlet.take()
    gevent.spawn(outlet.end, Ending.STOPPING)
    ended = outlet.wait(LONG)

    assert (quiet, put, ended) == (False, True, True)
    outlet.close()


def test_the_first_reason_to_end_counts() -> None:
    outlet = make_outlet()

    outlet.end(Ending.UNWELCOME)
    outlet.end(Ending.GONE)

    assert outlet.ending is Ending.UNWELCOME
    outlet.close()


def test_a_client_that_does_not_hear_of_the_end_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outlets, "PARTING", SHORT)
    cut: list[str] = []
    over = gevent.event.Event()
    hearing, deaf = Outlet(lambda: cut.append("hearing")), Outlet(over.set)

    hearing.end(Ending.SLOW)
    hearing.close()
    deaf.end(Ending.SLOW)

    assert over.wait(LONG.total_seconds())
    assert cut == []
