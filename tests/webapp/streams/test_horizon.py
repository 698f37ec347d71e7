"""What is told of a table whose rows are committed in any order: all of it, once, in order."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from webapp.streams.horizon import Doubt, Horizon, Look, Writers, advance

PAGE = 3

Step = tuple[str, str]
NAMES = "abc"
STEP = st.tuples(st.sampled_from(["take", "commit", "abort"]), st.sampled_from(NAMES))


@dataclass
class Table:
    """Rows, and transactions that have taken numbers and not yet ended."""

    rows: set[int] = field(default_factory=set)
    open: dict[str, list[int]] = field(default_factory=dict)
    taken: int = 0

    def look(self, after: int | None) -> Look:
        if after is None:
            newest = max(self.rows, default=0)
            return Look(0 if newest == 0 else None, newest)
        ahead = sorted(row for row in self.rows if row > after)[:PAGE]
        whole = [row for place, row in enumerate(ahead, 1) if row == after + place]
        return Look(max(whole, default=None), max(ahead, default=None), len(ahead) == PAGE)

    def writing(self) -> Writers:
        return frozenset(self.open)

    def take(self, writer: str) -> None:
        self.taken += 1
        self.open.setdefault(writer, []).append(self.taken)

    def end(self, writer: str, *, commits: bool) -> None:
        numbers = self.open.pop(writer, [])
        self.rows |= set(numbers) if commits else set()


def settle(table: Table, horizon: Horizon) -> Horizon:
    """Look as often as there may be more at once."""
    horizon = advance(horizon, table.look, table.writing)
    while horizon.is_behind:
        horizon = advance(horizon, table.look, table.writing)
    return horizon


def table_of(*rows: int, **open_transactions: list[int]) -> Table:
    taken = max([*rows, *(number for taken in open_transactions.values() for number in taken)])
    return Table(set(rows), dict(open_transactions), taken)


def test_rows_without_a_gap_are_settled() -> None:
    assert settle(table_of(1, 2, 3), Horizon(0)) == Horizon(3)


def test_nothing_behind_a_gap_is_told_while_its_writer_is_at_work() -> None:
    table = table_of(1, 2, 4, a=[3])

    held = settle(table, Horizon(0))

    assert held == Horizon(2, Doubt(4, frozenset({"a"})))
    assert settle(table, held) == held


def test_a_gap_that_is_filled_is_settled() -> None:
    table = table_of(1, 3, a=[2])
    held = settle(table, Horizon(0))

    table.end("a", commits=True)

    assert settle(table, held) == Horizon(3)


def test_a_gap_whose_writer_gave_up_is_settled() -> None:
    table = table_of(1, 3, a=[2])
    held = settle(table, Horizon(0))

    table.end("a", commits=False)

    assert settle(table, held) == Horizon(3)


def test_a_gap_that_nobody_holds_is_settled_at_once() -> None:
    assert settle(table_of(1, 5, 9), Horizon(1)) == Horizon(9)


def test_writers_that_came_later_hold_up_nothing_older() -> None:
    table = table_of(1, 3, a=[2])
    held = settle(table, Horizon(0))
    table.take("b")
    table.end("b", commits=True)
    table.take("c")
    held = settle(table, held)

    table.end("a", commits=False)

    assert settle(table, held).number == 4


def test_a_long_way_is_gone_in_one_turn() -> None:
    assert settle(table_of(*range(1, 3 * PAGE)), Horizon(0)).number == 3 * PAGE - 1


def test_the_beginning_waits_for_those_at_work() -> None:
    table = table_of(7, 9, a=[8])

    held = settle(table, Horizon())
    table.end("a", commits=True)

    assert held.number is None
    assert settle(table, held) == Horizon(9)


def test_an_empty_table_begins_at_nothing() -> None:
    assert settle(Table(), Horizon()) == Horizon(0)


class Told:
    """Looks at a table now and then and notes what it tells; others go on meanwhile."""

    def __init__(self, meanwhile: Iterator[list[Step]]) -> None:
        self.table = Table()
        self.rows: list[int] = []
        self._horizon = Horizon(0)
        self._meanwhile = meanwhile
        self._ages = dict.fromkeys(NAMES, 0)

    def turn(self) -> None:
        before = self._horizon.number or 0
        self._horizon = advance(self._horizon, self._look, self._writing)
        reached = self._horizon.number or 0
        assert reached >= before
        self.rows += sorted(row for row in self.table.rows if before < row <= reached)

    def finish(self) -> None:
        for writer in list(self.table.open):
            self.table.end(writer, commits=True)
        for _ in range(2 * self.table.taken + 2):
            self.turn()

    def _look(self, after: int | None) -> Look:
        seen = self.table.look(after)
        self._go_on()
        return seen

    def _writing(self) -> Writers:
        writers = self.table.writing()
        self._go_on()
        return writers

    def _go_on(self) -> None:
        for what, name in next(self._meanwhile, []):
            # Postgres never names two transactions alike.
            writer = f"{name}{self._ages[name]}"
            if what == "take":
                self.table.take(writer)
            else:
                self.table.end(writer, commits=what == "commit")
                self._ages[name] += 1


@settings(max_examples=500)
@given(st.lists(st.lists(STEP, max_size=6), max_size=30))
def test_every_row_is_told_once_and_in_order(meanwhile: list[list[Step]]) -> None:
    told = Told(iter(meanwhile))

    for _ in meanwhile:
        told.turn()
    told.finish()

    assert told.rows == sorted(told.table.rows)


def test_a_writer_that_came_between_two_questions_is_waited_for() -> None:
    overtaken = [("take", "a"), ("take", "b"), ("commit", "b")]
    for question in range(3):
        told = Told(iter([[]] * question + [overtaken]))

        for _ in range(3):
            told.turn()
        told.finish()

        assert told.rows == [1, 2]
