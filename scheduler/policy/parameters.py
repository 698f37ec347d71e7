"""Every number of the policy, with its unit and its reason."""

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType

from scheduler.states import JobClass

LIGHTEST, HEAVIEST = 0.25, 4.0
"""Bounds of an owner's weight. Wider ones would let some owners override others completely."""

MOST_ALLOWANCE = 4.0
"""The most that rules together may multiply an express allowance by: as much as a weight may."""

LEAST_SHARE = 0.001
"""Dominant share of a job that asks for next to nothing: it takes a worker process all the same."""

HEAD_START: Mapping[JobClass, timedelta] = MappingProxyType(
    {
        JobClass.CRITICAL: timedelta(hours=6),
        JobClass.HIGH: timedelta(hours=1),
        JobClass.NORMAL: timedelta(minutes=10),
        JobClass.LOW: timedelta(0),
    }
)
"""How much earlier a job counts as ready inside its owner's line: urgent, yet never for ever."""

LEVEL_STEP = timedelta(minutes=4)
"""What one level inside a class is worth, counted from the level the class has by name.

Five minutes or more would put the last normal level behind the first low one.
"""

ALLOWANCE_TIME: Mapping[JobClass, timedelta] = MappingProxyType(
    {JobClass.CRITICAL: timedelta(seconds=120), JobClass.HIGH: timedelta(seconds=30)}
)
"""How far ahead of its own share express work may carry an owner: a burst, not a habit."""

ALLOWANCE_JOBS: Mapping[JobClass, int] = MappingProxyType({JobClass.CRITICAL: 8, JobClass.HIGH: 4})
"""The allowance in average jobs, at least: among many owners the time alone is less than one."""

EXPRESS_REFILL = 0.75
"""Part of an owner's share that pays express work back, and of the machine all of it may take.

At a whole share an owner that keeps sending express work never comes back to its due.
"""

EXPRESS_BURST: Mapping[JobClass, float] = MappingProxyType(
    {JobClass.CRITICAL: 60.0, JobClass.HIGH: 30.0}
)
"""Machine-seconds of everybody's express work before the lanes close; high closes first."""

DEFERENCE_TIME = timedelta(seconds=30)
"""How far behind its owner's place a low job stands, in the owner's own share."""

DEFERENCE_JOBS = 2
"""The deference in average jobs, at least, for the same reason as with the allowance."""

LAG_LIMIT = timedelta(seconds=600)
"""The most anybody is owed, in their own share: a debt beyond it would shut out everybody else."""

RESERVATION_HARDENS = timedelta(seconds=5)
"""How long a job is next and does not fit until its reservation sticks to it."""

RESERVATION_SLIP = timedelta(seconds=60)
"""How late wrong predictions may make a reserved start before nothing more is let into the gap."""

GAP_TRIES = 32
"""How many jobs of one kind a pass tries to fit into a gap that such jobs may be too long for."""

OVERDUE_ENDS_WITHIN = timedelta(seconds=1)
"""When a job that has run longer than expected is taken to end: soon, so that the gap drains."""

CAPPED_PATIENCE = timedelta(seconds=30)
"""How long an owner's smaller jobs may pass its own first job that waits for the owner's cap."""

EXCESS_GRAIN = 0.05
"""Steps, as a part of the mean cost, in which running longer than expected is counted."""

FLOOR_LOOKS_AT = 200
"""How many owners at the front are asked whether they could go, to keep virtual now with them."""

RUN_AHEAD = timedelta(milliseconds=200)
"""How much work may wait beside the worker processes, so that short jobs do not wait for a pass."""

LONGEST_STEP = timedelta(seconds=60)
"""The most virtual time takes in at once: a jump of the clock must not forgive every debt."""

MEAN_COST_MEMORY = 50
"""Over how many ended jobs the mean cost is averaged: a spell of odd jobs passes unnoticed."""

EXPECTED_DEFAULT = timedelta(seconds=1)
"""What a job without history or estimate is taken to run.

Short, because too long a guess keeps jobs out of gaps they would fit into.
"""

DURATION_MEMORY = 20
"""Over how many attempts durations and their spread are averaged: fewer say little of a spread."""

OWN_HISTORY = 5
"""How many attempts an owner's jobs of a type must have had to be told apart from everybody's."""

SPREAD_UNKNOWN = 1.0
"""Spread of a duration nobody has seen: most likely within a factor of three either way."""

SPREAD_PRIOR = 2
"""How many attempts that spread outweighs: two that lasted alike do not make a third one sure."""

DURATIONS_KEPT = 50_000
"""How many pairs of type and owner the leader remembers, those used last; the rest go by type."""

EXPECTED_LEAST = timedelta(milliseconds=10)
"""The least a job is taken to run, so that every admission moves its owner's meter."""

FORECAST_ADMISSIONS = 200
"""How many admissions a forecast plays through; beyond them it goes on at their rate."""

FORECAST_GRAIN = 0.25
"""The part of the running jobs a forecast lets end at once: ranges need no finer instants."""

FORECAST_BLUR = timedelta(seconds=1)
"""No forecast is surer than this: added to a wait before it is stretched, and taken off after."""

FORECAST_WIDTH = 0.5
"""Doubt about a start beside that about durations, as the logarithm of a factor: who comes next."""

SPREAD_WIDEST = 1.5
"""The widest spread a forecast reckons with; the mean of a wider one is that of its rarest jobs."""

ESTIMATE_MISSES = 0.09
"""The part of starts that may fall before their range, and the part that may fall after it."""

ESTIMATE_BOUNDS = (-1.6, 1.9)
"""Where ranges begin and end before anything was scored, in widths of the forecast."""

ESTIMATE_BOUNDS_LIMITS = (0.3, 6.0)
"""The nearest and the farthest a range may begin or end from the middle, in the same unit."""

ESTIMATE_STEP = 0.05
"""How far one start moves the bounds: a crowd that was kept waiting widens the next estimates."""

ESTIMATES_SCORED = 10_000
"""How many published estimates are remembered until their jobs start."""

CURVE_POINTS = 200
"""Points of the curve that places jobs far back; more would cost readers more than they tell."""

CURVE_SAMPLE = 10_000
"""Short lines that are counted for it; among more of them these stand for the others."""

CURVE_LONG = 10
"""How many times the average a line has to hold to be counted in any case."""
