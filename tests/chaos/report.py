"""What runs have shown, as Markdown: what was struck, how soon it was over, what was broken."""

import os
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import psutil

from tests.chaos.audit import RULES, Breach
from tests.chaos.recovery import Recovery
from tests.chaos.schedule import ALONE_PART, Kind

BEGIN = "<!-- chaos: from here on written by python -m tests.chaos --report -->"
END = "<!-- chaos: up to here -->"
_MOST_BREACHES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What reproduces a run: the same plan strikes at the same times and asks for the same jobs."""

    seed: int
    seconds: float
    rate: float

    @property
    def command(self) -> str:
        """The command that makes this run."""
        minutes, rate = f"{self.seconds / 60:g}", f"{self.rate:g}"
        return f"python -m tests.chaos --seed {self.seed} --minutes {minutes} --rate {rate}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What became of a plan."""

    plan: Plan
    breaches: Sequence[Breach]
    recoveries: Sequence[Recovery]
    missed: Sequence[Kind]
    counts: Mapping[str, int]
    answers: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Promise:
    """How soon it is over when this comes alone, 95 times of a hundred."""

    kind: Kind
    told: str
    within_seconds: float

    def measured(self, runs: Iterable[Run]) -> "Figures":
        """Return the figures of the strikes that came alone."""
        return figures(_of(runs, self.kind, alone=True))

    def is_kept(self, runs: Iterable[Run]) -> bool:
        """Tell whether it is kept, as far as it was tried."""
        p95 = self.measured(runs).p95
        return p95 is None or p95 <= self.within_seconds


PROMISES = (
    Promise(Kind.WORKER_KILLED, "the jobs of a killed worker run elsewhere", 45.0),
    Promise(Kind.CHILD_KILLED, "the job of a killed pool process runs elsewhere", 2.0),
    Promise(Kind.LEADER_KILLED, "the standby leads after the leader was killed", 5.0),
    Promise(Kind.REDIS_EMPTIED, "queued jobs move and every worker works again", 10.0),
)

_CLOCKS = (
    "The clock of Postgres does not jump: it is the machine's, and others live by it. Those of"
    " Fairq's processes do, one at a time, by an hour or by three days, forth and back."
)
_PACKETS = (
    "No packets are lost between kernels: a connection that is silent or dead still acknowledges"
    " what it is sent, so the keepalive of TCP is not tried."
)
NOT_INJECTED = (_CLOCKS, _PACKETS)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of some seconds; None where there are none."""

    count: int
    p50: float | None = None
    p95: float | None = None
    most: float | None = None


def figures(seconds: Iterable[float]) -> Figures:
    """Return the middle, the 95th of a hundred and the largest."""
    ordered = sorted(seconds)
    if not ordered:
        return Figures(0)
    at = [ordered[ceil(part * len(ordered)) - 1] for part in (0.5, 0.95)]
    return Figures(len(ordered), *at, ordered[-1])


def _of(runs: Iterable[Run], kind: Kind, *, alone: bool) -> Iterator[float]:
    for run in runs:
        for recovery in run.recoveries:
            if recovery.struck.strike.kind is kind and recovery.is_alone is alone:
                yield from recovery.seconds


def is_well(runs: Sequence[Run]) -> bool:
    """Tell whether no run broke a rule, and every promise was kept."""
    return not any(run.breaches for run in runs) and all(one.is_kept(runs) for one in PROMISES)


def render(runs: Sequence[Run], *, command: str, left_out: Sequence[str] = ()) -> str:
    """Write the report."""
    parts = (
        _head(runs, command),
        _rules(runs),
        _promises(runs),
        _faults(runs),
        _left_out([*left_out, *NOT_INJECTED]),
        _failures(runs),
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def write(path: Path, text: str) -> None:
    """Put the report in its place in a file that has one, or make it the file."""
    if path.exists():
        before, found, rest = path.read_text().partition(BEGIN)
        _, also_found, after = rest.partition(END)
        if not (found and also_found):
            raise ValueError(f"{path} has no place for the report: {BEGIN} ... {END}")
        text = f"{before}{BEGIN}\n\n{text}\n{END}{after}"
    path.write_text(text)


def _head(runs: Sequence[Run], command: str) -> str:
    return "\n".join(("```sh", command, "```", "", _made(runs), "", *_counted(runs)))


def _made(runs: Sequence[Run]) -> str:
    plan, memory = runs[0].plan, round(psutil.virtual_memory().total / 2**30)
    seeds = ", ".join(str(run.plan.seed) for run in runs)
    return (
        f"Runs of {plan.seconds / 60:g} minutes at {plan.rate:g} jobs/s with the seeds {seeds}, on"
        f" {os.cpu_count()} cores with {memory} GiB and Python {platform.python_version()}. Two"
        " schedulers, three workers of eight processes and a web process, Postgres, Valkey, the"
        " load and the faults share the machine."
    )


def _counted(runs: Sequence[Run]) -> Iterator[str]:
    counts = sum((Counter(run.counts) for run in runs), Counter())
    answers = sum((Counter(run.answers) for run in runs), Counter())
    yield (
        f"- {counts['jobs']:,} jobs, {counts['attempts']:,} attempts: {counts['lost']:,} were lost,"
        f" {counts['repeated']:,} repeated for that, {counts['failed']:,} failed as told"
    )
    yield (
        f"- {counts['effects']:,} effects recorded; {counts['again']:,} times one was delivered"
        " that was there already"
    )
    yield f"- {sum(answers.values()):,} requests: {_listed(answers)}"


def _listed(answers: Mapping[str, int]) -> str:
    ordered = sorted(answers.items(), key=lambda item: -item[1])
    return ", ".join(f"{count:,} {what}" for what, count in ordered)


def _rules(runs: Sequence[Run]) -> str:
    broken = Counter(breach.rule for run in runs for breach in run.breaches)
    rows = [(rule, f"{broken[rule] or 'never'}") for rule in RULES]
    return _table(("checked on what is recorded, after every run", "broken"), "l r", rows)


def _promises(runs: Sequence[Run]) -> str:
    rows = []
    for promise in PROMISES:
        measured = promise.measured(runs)
        bound = f"{promise.within_seconds:g}"
        kept = "-" if not measured.count else "yes" if promise.is_kept(runs) else "**no**"
        shown = (str(measured.count), *map(_shown, (measured.p50, measured.p95, measured.most)))
        rows.append((promise.told, bound, *shown, kept))
    heads = (
        "after a fault that came alone",
        "within s at p95",
        "measured",
        "p50",
        "p95",
        "max",
        "kept",
    )
    return _table(heads, "l r r r r r r", rows)


def _faults(runs: Sequence[Run]) -> str:
    rows = []
    for kind in Kind:
        struck = [one for run in runs for one in run.recoveries if one.struck.strike.kind is kind]
        alone = figures(_of(runs, kind, alone=True))
        others = figures(_of(runs, kind, alone=False))
        shown = [alone.p50, alone.p95, alone.most, others.p50, others.p95, others.most]
        count = sum(one.is_alone for one in struck)
        rows.append((kind, str(len(struck)), str(count), *map(_shown, shown)))
    heads = ("fault", "injected", "alone", "p50", "p95", "max", "p50*", "p95*", "max*")
    missed = Counter(kind for run in runs for kind in run.missed)
    return _table(heads, "l r r r r r r r r", rows) + "\n\n" + _legend(missed)


def _legend(missed: Mapping[Kind, int]) -> str:
    part = f"{ALONE_PART:.0%}"
    told = (
        "Seconds until it was over, read from the recorded history. Of a killed process and of an"
        " emptied Redis they count from the fault, of what was away from when it was back. It is"
        " over when the lost attempts run again, another scheduler admits, submissions are taken,"
        " or, for services and connections, when *every* worker that is up has begun something"
        f" admitted since. In the first {part} of a run faults come one by one; columns with a star"
        " are of the storm, where other outages lengthen it, and where what is lost waits its turn"
        " behind what has piled up."
    )
    nobody = ", ".join(f"{count} x {kind}" for kind, count in missed.items())
    return told + (f" Found nobody to strike: {nobody}." if nobody else "")


def _left_out(reasons: Sequence[str]) -> str:
    return "Not injected:\n\n" + "\n".join(f"- {reason}" for reason in reasons)


def _failures(runs: Sequence[Run]) -> str:
    lines = []
    for run in runs:
        for breach in run.breaches[:_MOST_BREACHES]:
            told = " ".join(breach.told.split())
            lines.append(f"- seed {run.plan.seed}, {breach.rule}: {told}")
        if run.breaches:
            lines.append(f"- `{run.plan.command}` strikes so again.")
    return "**Broken**\n\n" + "\n".join(lines) if lines else ""


def _shown(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f}"


def _table(heads: Sequence[str], sides: str, rows: Iterable[Sequence[str]]) -> str:
    rules = ["---:" if side == "r" else "---" for side in sides.split()]
    lines = [heads, rules, *rows]
    return "\n".join(_row(line) for line in lines)


def _row(cells: Sequence[str]) -> str:
    return f"|{'|'.join(cells)}|" if cells[0].startswith("---") else f"| {' | '.join(cells)} |"
