"""Results as pictures. Loaded only when pictures are wanted."""

from collections.abc import Iterator, Mapping, Sequence
from math import fsum
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

from scheduler.simulate.figures import Window, received_within
from scheduler.simulate.fluid import due
from scheduler.simulate.playing import Outcome, Setting
from scheduler.states import JobClass

_STYLE: dict[RcKeyType, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "svg.fonttype": "none",  # words stay words: small files, and they can be searched
    "svg.hashsalt": "fairq",  # equal results give equal files
}
_COLOURS = ("#1f5fa8", "#d1701c", "#3b8f56", "#8a4fa3", "#777777")
_INSTANTS = 60
_LEAST_SHOWN = 0.1


def draw(setting: Setting, outcomes: Sequence[Outcome], directory: Path) -> Iterator[Path]:
    """Draw how long jobs waited and who received what; yield the files."""
    directory.mkdir(parents=True, exist_ok=True)
    with rc_context(_STYLE):
        yield _saved(_waits(setting, outcomes), directory / f"{setting.name}-waits.svg")
        if len(setting.workload.parties) > 1:
            picture = _shares(setting, outcomes)
            yield _saved(picture, directory / f"{setting.name}-shares.svg")


def _saved(picture: Figure, path: Path) -> Path:
    picture.savefig(path, metadata={"Date": None})
    return path


def _waits(setting: Setting, outcomes: Sequence[Outcome]) -> Figure:
    """Bars up to the p99 of each class, with a mark at its p50, for every policy."""
    picture = Figure(figsize=(8, 3.2), layout="constrained")
    axes = picture.add_subplot()
    width = 0.8 / len(outcomes)
    for place, each in enumerate(outcomes):
        left = (place - (len(outcomes) - 1) / 2) * width
        _bars(axes, each, left, width, _COLOURS[place % len(_COLOURS)])
    axes.set_yscale("log")
    axes.set_ylim(bottom=_LEAST_SHOWN)
    axes.set_xticks(range(len(JobClass)), [str(name) for name in JobClass])
    axes.set_ylabel("seconds waited, p99 (dot: p50)")
    axes.set_title(f"{setting.name}: {setting.about}", loc="left", fontsize=9, wrap=True)
    if len(outcomes) > 1:
        picture.legend(loc="outside lower center", fontsize=8, ncols=len(outcomes))
    return picture


def _bars(axes: Axes, each: Outcome, left: float, width: float, colour: str) -> None:
    found = {
        place: each.figures.watched[name]
        for place, name in enumerate(JobClass)
        if name in each.figures.watched
    }
    places = [place + left for place in found]
    p99 = [max(waits.p99, _LEAST_SHOWN) for waits in found.values()]
    p50 = [max(waits.p50, _LEAST_SHOWN) for waits in found.values()]
    axes.bar(places, p99, width * 0.9, color=colour, label=each.policy)
    axes.plot(places, p50, "o", color="black", markersize=3)


def _shares(setting: Setting, outcomes: Sequence[Outcome]) -> Figure:
    """What each party has received over time, beside what it was due, for every policy."""
    picture = Figure(figsize=(9, 2.8), layout="constrained")
    every = picture.subplots(1, len(outcomes), sharey=True, squeeze=False)[0]
    for axes, each in zip(every, outcomes, strict=True):
        _lines(axes, setting, each)
        axes.set_title(each.policy, loc="left", fontsize=8)
        axes.set_xlabel("minutes")
    every[0].set_ylabel("machine-minutes received\n(dashed: due)")
    lines, names = every[0].get_legend_handles_labels()
    picture.legend(lines, names, loc="outside lower center", fontsize=8, ncols=len(names))
    return picture


def _lines(axes: Axes, setting: Setting, each: Outcome) -> None:
    workload = setting.workload
    instants = [setting.window.until * step / _INSTANTS for step in range(_INSTANTS + 1)]
    owed = list(due(workload, each.runs, instants))
    received = [received_within(workload, each.runs, Window(0.0, until)) for until in instants]
    minutes = [instant / 60 for instant in instants]
    for place, party in enumerate(workload.parties):
        colour = _COLOURS[place % len(_COLOURS)]
        axes.plot(minutes, _sums(received, party.owners), color=colour, label=party.name)
        axes.plot(minutes, _sums(owed, party.owners), "--", color=colour, linewidth=0.8)


def _sums(amounts: Sequence[Mapping[int, float]], owners: frozenset[int]) -> list[float]:
    return [fsum(each.get(owner, 0.0) for owner in owners) / 60 for each in amounts]
