"""Results as tables of text. Pure."""

from collections.abc import Iterable, Iterator, Sequence

from scheduler.simulate.figures import ALL, Figures, PartyFigures, Waits
from scheduler.simulate.playing import Outcome, Setting
from scheduler.states import JobClass

Row = Sequence[str]

_FEW_PARTIES = 4
"""So many parties get a column of their own in a comparison."""

_FINE = 10
"""Seconds from which on a table does without tenths."""


def table(rows: Iterable[Row]) -> str:
    """Align columns: words to the left in the first, figures to the right in the others."""
    cells = list(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )


def told(setting: Setting, outcomes: Sequence[Outcome]) -> str:
    """Tell what came of a setting under one policy, or compare several."""
    (first, *others) = outcomes
    parts = (
        [table(compared(outcomes))]
        if others
        else [
            table(waits_by_class(first.figures)),
            table(parties(first.figures)),
            summary(first.figures),
        ]
    )
    return "\n\n".join([f"{setting.name}: {setting.about}", *parts])


def waits_by_class(found: Figures) -> Iterator[Row]:
    """Tell how long jobs of each class waited."""
    yield "class", "jobs", "p50 s", "p99 s", "longest s"
    for name in (*JobClass, ALL):
        if name in found.watched:
            yield str(name), *_waits(found.watched[name])


def parties(found: Figures) -> Iterator[Row]:
    """Tell what owners received, what they were due, and how long they waited."""
    yield "users", "received", "due", "jobs", "p50 s", "p99 s", "longest s"
    for name, party in found.parties.items():
        share = (percent(party.share.received), percent(party.share.due))
        yield name, *share, *(_waits(party.waits[ALL]) if ALL in party.waits else ["-"] * 4)


def summary(found: Figures) -> str:
    """Tell in one line how fair and how busy it was."""
    left = f", {found.left_waiting} still waiting" if found.left_waiting else ""
    return (
        f"{found.started} jobs started{left}; {percent(found.used)} of the machine used,"
        f" {percent(found.busy)} while somebody waited; Jain index {found.jain:.4f},"
        f" furthest from its due {percent(found.furthest)}"
    )


def compared(outcomes: Sequence[Outcome]) -> Iterator[Row]:
    """Set several policies side by side."""
    names = list(outcomes[0].figures.parties)
    shown = names if 1 < len(names) <= _FEW_PARTIES else []
    classes = [name for name in JobClass if any(name in each.figures.watched for each in outcomes)]
    yield (
        "policy",
        *(f"{name} {part}" for name in classes for part in ("p50", "p99")),
        "longest",
        "Jain",
        "busy",
        *(f"{name} gets" for name in shown),
    )
    for each in outcomes:
        found = each.figures
        yield (
            each.policy,
            *(cell for name in classes for cell in _middle_and_end(found, name)),
            seconds(found.watched[ALL].longest),
            f"{found.jain:.3f}",
            percent(found.busy),
            *(percent(found.parties[name].share.received) for name in shown),
        )


def side_by_side(outcomes: Sequence[Outcome]) -> Iterator[Row]:
    """Set what owners received and how long they waited side by side."""
    yield (
        "users",
        *(f"{each.policy} {part}" for each in outcomes for part in ("gets", "p50 s", "p99 s")),
    )
    for name in outcomes[0].figures.parties:
        found = [each.figures.parties[name] for each in outcomes]
        yield name, *(cell for party in found for cell in _share_and_waits(party))


def _share_and_waits(party: PartyFigures) -> tuple[str, str, str]:
    received, waits = percent(party.share.received), party.waits.get(ALL)
    return (received, "-", "-") if waits is None else (received, *_ends(waits))


def _ends(waits: Waits) -> tuple[str, str]:
    return seconds(waits.p50), seconds(waits.p99)


def _middle_and_end(found: Figures, job_class: JobClass) -> tuple[str, str]:
    waits = found.watched.get(job_class)
    return ("-", "-") if waits is None else _ends(waits)


def _waits(waits: Waits) -> list[str]:
    return [str(waits.jobs), seconds(waits.p50), seconds(waits.p99), seconds(waits.longest)]


def seconds(amount: float) -> str:
    """Write seconds as fine as they are worth."""
    return f"{amount:.1f}" if amount < _FINE else f"{amount:,.0f}"


def percent(part: float) -> str:
    """Write a part of a whole."""
    return f"{100 * part:.1f} %"
