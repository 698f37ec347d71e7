"""How often estimated starts come true: each estimate against what happens in the run."""

from collections import Counter
from dataclasses import dataclass

from scheduler.policy.engine import Engine
from scheduler.policy.experience import Scorer, Verdict
from scheduler.policy.forecast import estimate
from scheduler.simulate.loop import Simulation
from scheduler.simulate.report import percent
from scheduler.simulate.workload import Workload

FRONT = 1000
"""So many of the first jobs an estimate looks at, as the service does."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How many starts lay in their estimated range, and how many before and after it."""

    within: int
    early: int
    late: int

    @property
    def asked(self) -> int:
        """How many estimates there are."""
        return self.within + self.early + self.late

    @property
    def part(self) -> float:
        """The part of the starts that lay within."""
        return self.within / (self.asked or 1)

    def sentence(self) -> str:
        """Say it to a person."""
        return (
            f"{percent(self.part)} of {self.asked} estimated starts lay in their range,"
            f" {self.early} before it and {self.late} after it"
        )


def score(workload: Workload, *, every: int = 1) -> Tally:
    """Estimate the start of every so-manieth job that has to wait, when it arrives, and see.

    Ranges follow experience as they do in the service.
    """
    engine, scorer = Engine(), Scorer()
    simulation = Simulation(workload, engine)
    newest = 0
    for decided in simulation.steps():
        scorer.started({admission.id: simulation.now for admission in decided.admissions})
        new = {
            job.id: job.job_class
            for job in simulation.waiting.values()
            if job.id > newest and job.id % every == 0
        }
        newest = max([newest, *simulation.waiting])
        if new:
            front = engine.front(simulation.now, simulation.running.values(), FRONT)
            scorer.publish(estimate(front, new, experience=scorer.experience), new)
    verdicts: Counter[Verdict] = Counter()
    for each in scorer.take():
        verdicts.update(each.verdicts)
    return Tally(verdicts[Verdict.WITHIN], verdicts[Verdict.EARLY], verdicts[Verdict.LATE])
