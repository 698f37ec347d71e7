"""How far a table that grows can be told. Pure: no database, no clock.

Numbers are taken before a commit, so a row may still appear behind one that is there already.
What follows a gap is therefore told only when the gap is settled: filled, or certain to stay empty
because every transaction that might hold its numbers has ended.
"""

from collections.abc import Callable
from dataclasses import dataclass

Writers = frozenset[str]


@dataclass(frozen=True, slots=True)
class Look:
    """What was visible behind a number: the end of the rows without a gap, and the last row.

    *is_full*: there may be more rows than were looked at.
    """

    whole: int | None
    last: int | None
    is_full: bool = False


@dataclass(frozen=True, slots=True)
class Doubt:
    """Numbers before *until* are missing, and only *writers* may hold them."""

    until: int
    writers: Writers


@dataclass(frozen=True, slots=True)
class Horizon:
    """Everything up to *number* is settled; None: nothing is known yet.

    *is_behind*: another look may reach further at once.
    """

    number: int | None = None
    doubt: Doubt | None = None
    is_behind: bool = False


def advance(
    horizon: Horizon, look: Callable[[int | None], Look], writing: Callable[[], Writers]
) -> Horizon:
    """Return how far everything is settled now; it never goes back. Rows are read after this.

    *look* tells what is visible behind a number, *writing* which transactions have written to the
    table and not yet ended. A transaction counts among them before it takes a number.
    """
    doubt = horizon.doubt
    if doubt is not None:
        doubt = Doubt(doubt.until, doubt.writers & writing())
    seen = look(horizon.number)
    number = _reached(horizon.number, seen, doubt)
    if seen.last is None or (number is not None and number >= seen.last):
        return Horizon(number, is_behind=seen.is_full)
    if doubt is not None and (number is None or number < doubt.until):
        return Horizon(number, doubt)
    if doubt is not None and not doubt.writers:
        return Horizon(number, is_behind=True)
    # After the look, so that whoever took a number below the last one is among them.
    doubt = Doubt(seen.last, writing())
    return Horizon(number, doubt, is_behind=not doubt.writers)


def _reached(number: int | None, seen: Look, doubt: Doubt | None) -> int | None:
    reached = [one for one in (number, seen.whole) if one is not None]
    if doubt is not None and not doubt.writers:
        reached.append(doubt.until)
    return max(reached, default=None)
