"""``fairq top``: how busy the machine is and with what, as it changes."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table

from fairq.cli import arguments, options, tables, terminal
from fairq.client import Client
from fairq.models import READY, RUNNING, Account, Job, Offer, Stats

_MOST_JOBS = 500
"""So many active jobs are counted into the shares; more would not be read in a second."""

_SHOWN_JOBS = 20
_SHOWN_OWNERS = 10


@dataclass(frozen=True, slots=True)
class Picture:
    """What is going on, as far as whoever asks may see."""

    account: Account
    stats: Stats
    active: Sequence[Job]

    @property
    def shares(self) -> Mapping[str, float]:
        """The part of the machine that each owner's active jobs take, the largest first."""
        taken: defaultdict[str, list[Job]] = defaultdict(list)
        for job in self.active:
            taken[job.owner].append(job)
        shares = {owner: share(jobs, self.stats.capacity) for owner, jobs in taken.items()}
        return dict(sorted(shares.items(), key=lambda pair: (-pair[1], pair[0])))

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "username": self.account.username,
            "stats": self.stats.as_json(),
            "shares": dict(self.shares),
            "active": [job.as_json() for job in self.active],
        }


def top(
    *,
    every: Annotated[
        Any, typer.Option(parser=arguments.seconds, metavar="TIME", help="How often to look.")
    ] = "1s",
    as_json: options.AsJson = False,
) -> None:
    """Show live how busy the machine is and with what; once where nobody looks on. Ctrl-C ends it.

    Operators see everybody, anybody else themselves.
    """
    with terminal.connected() as client:
        if as_json:
            terminal.print_json(look(client).as_json())
        elif terminal.is_screen():
            terminal.watch(lambda: screen(look(client)), every)
        else:
            terminal.show(screen(look(client)))


def look(client: Client) -> Picture:
    """Ask for everything that is shown."""
    return Picture(
        account=client.me(),
        stats=client.stats(),
        active=list(islice(client.jobs(status="active", limit=_MOST_JOBS), _MOST_JOBS)),
    )


def share(jobs: Sequence[Job], capacity: Offer | None) -> float:
    """Return the larger of the fractions of CPU and memory that *jobs* take together."""
    needs = [job.resource_requirements for job in jobs if job.resource_requirements]
    if capacity is None:
        return 0.0
    cpu = _part(sum(one.cpu_units for one in needs), capacity.cpu_units)
    memory = _part(sum(one.memory_mb for one in needs), capacity.memory_mb)
    return max(cpu, memory)


def screen(picture: Picture) -> RenderableType:
    """Draw a picture."""
    stats, account = picture.stats, picture.account
    whose = "everybody" if stats.of == "all" else account.username
    head = f"fairq top   {whose}   {tables.clock(stats.at)}   {stats.workers} workers"
    running = [job for job in picture.active if job.started_at is not None]
    return Group(
        terminal.plain(head),
        Panel(tables.utilisation(stats.reserved, stats.capacity), title="in use"),
        Panel(_queues(stats), title="waiting"),
        Panel(_shares(picture.shares), title="shares"),
        tables.jobs_table(running[:_SHOWN_JOBS]),
    )


def _queues(stats: Stats) -> Table:
    most = max([*stats.classes.values(), 1])
    table = Table.grid(padding=(0, 2))
    for name, count in stats.classes.items():
        table.add_row(terminal.plain(name), tables.bar(count, most), str(count))
    for name, count in stats.jobs.items():
        if name not in {READY, RUNNING} and count:
            table.add_row(terminal.plain(name), "", str(count))
    return table


def _shares(shares: Mapping[str, float]) -> Table:
    table = Table.grid(padding=(0, 2))
    for owner, part in list(shares.items())[:_SHOWN_OWNERS]:
        table.add_row(terminal.plain(owner), tables.bar(part, 1), f"{part:.0%}")
    return table


def _part(taken: float, whole: float) -> float:
    return taken / whole if whole else 0.0
