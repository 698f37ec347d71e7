"""The promises that only whole runs can show, numbered as the policy's description numbers them."""

from collections.abc import Iterable
from random import Random

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from scheduler.policy.admission import is_hard
from scheduler.policy.engine import Engine
from scheduler.policy.meters import effective_weight
from scheduler.policy.parameters import (
    ALLOWANCE_JOBS,
    ALLOWANCE_TIME,
    EXPRESS_REFILL,
    RESERVATION_HARDENS,
)
from scheduler.simulate.figures import Window, figures
from scheduler.simulate.loop import BEGIN, Simulation
from scheduler.simulate.playing import play, setting_of
from scheduler.simulate.reading import read_scenario
from scheduler.simulate.workload import Arrival, Workload
from scheduler.snapshot import NOTHING, Account, Caps, Resources
from scheduler.states import JobClass
from tests.scheduler.simulate.loads import EIGHT, Watched, arrival, load, some_job

CRITICAL, HIGH, NORMAL, LOW = JobClass.CRITICAL, JobClass.HIGH, JobClass.NORMAL, JobClass.LOW
WHOLE = (Phase.explicit, Phase.reuse, Phase.generate)  # a whole run takes too long to shrink
FEW = settings(max_examples=8, deadline=None, phases=WHOLE)
randoms = st.randoms(use_true_random=True)


@FEW
@given(randoms)
def test_7_virtual_time_and_meters_never_go_back_but_at_the_end_of_a_job(random: Random) -> None:
    jobs = [some_job(random, random.randint(1, 4)) for _ in range(120)]

    runs = Simulation(load(jobs), Watched()).run()

    assert all(run.started is not None for run in runs)


@FEW
@given(randoms, st.integers(2, 8))
def test_8_and_9_nobody_gets_further_ahead_than_the_allowance_and_two_jobs(
    random: Random, count: int
) -> None:
    accounts = [
        Account(owner, weight=random.choice([0.25, 0.5, 1, 1, 2, 4]))
        for owner in range(1, count + 1)
    ]
    jobs = [job for account in accounts for job in backlog(random, account.owner_id)]
    workload = load(jobs, accounts=accounts, hours=120 / 3600, drain=False)
    engine = Engine()

    for _ in Simulation(workload, engine).steps():
        for account in engine.accounts.values():
            assert_bounded(account, engine, workload)


def backlog(random: Random, owner: int) -> list[Arrival]:
    """Make work that outlasts the run; the first owner sends nothing but critical jobs."""
    classes = [CRITICAL] if owner == 1 else random.choice([[NORMAL], [LOW, HIGH], [*JobClass]])
    return [
        arrival(
            owner,
            seconds=(seconds := random.uniform(1, 10)),
            cpu=random.choice([1, 1, 2, 4]),
            job_class=random.choice(classes),
            expected=seconds * 3 ** random.uniform(-1, 1),
        )
        for _ in range(300)
    ]


def assert_bounded(account: Account, engine: Engine, workload: Workload) -> None:
    weight = effective_weight(account.weight)
    largest = max(
        workload.share(job) * max(job.seconds, job.expected or 0)
        for job in workload.arrivals
        if job.owner_id == account.owner_id
    )
    everybody = sum(effective_weight(each.weight) for each in engine.accounts.values())
    allowance = max(
        ALLOWANCE_TIME[CRITICAL].total_seconds() / everybody,
        ALLOWANCE_JOBS[CRITICAL] * engine.clock.mean_cost / EXPRESS_REFILL / weight,
    )
    most = engine.clock.virtual_now + allowance
    assert account.meter <= most + 2 * largest / weight
    assert account.express_meter <= most + 2 * largest / weight / EXPRESS_REFILL


@FEW
@given(randoms, st.integers(20, 80))
def test_10_finite_work_all_starts_while_workers_come_and_go(random: Random, count: int) -> None:
    accounts = [Account(1, caps=Caps(cpu_units=8, running_jobs=2)), Account(2, weight=4)]
    half = Resources(4, 2048, 3)
    workload = load(
        [some_job(random, random.randint(1, 4)) for _ in range(count)],
        accounts=accounts,
        capacities=((0.0, half), (100.0, None), (150.0, EIGHT), (400.0, half), (500.0, EIGHT)),
        type_caps={"report": 1},
    )

    simulation = Simulation(workload, Engine())
    for decided in simulation.steps():
        if decided.admissions:
            held = sum((job.need for job in simulation.running.values()), NOTHING)
            assert (workload.capacity_at(simulation.seconds) or NOTHING).covers(held)

    assert len(simulation.starts) == count


def test_11_weights_4_2_1_receive_their_shares_within_five_percent_over_an_hour() -> None:
    (outcome,) = play(setting_of(read_scenario("saturation"), seed=1, hours=1))

    assert outcome.figures.left_waiting > 0
    assert outcome.figures.furthest <= 0.05


@settings(FEW, max_examples=2)
@given(randoms)
def test_11_classes_do_not_change_shares(random: Random) -> None:
    weights = {1: 4.0, 2: 2.0, 3: 1.0, 4: 1.0}
    classes = {1: [NORMAL], 2: [HIGH, LOW], 3: [CRITICAL], 4: [NORMAL]}
    jobs = [
        arrival(owner, seconds=random.uniform(0.1, 0.5), job_class=random.choice(classes[owner]))
        for owner in weights
        for _ in range(2600)
    ]
    accounts = [Account(owner, weight=weight) for owner, weight in weights.items()]
    workload = load(jobs, accounts=accounts, hours=0.05, drain=False)

    runs = Simulation(workload, Engine()).run()

    found = figures(workload, runs, window=Window(0, 180))
    # Machine-seconds of an owner's allowance, which those who send urgent work may be ahead by.
    ahead = ALLOWANCE_TIME[CRITICAL].total_seconds() / sum(weights.values())
    for owner, weight in weights.items():
        share = found.parties[f"owner {owner}"].share
        assert abs(share.received - share.due) * 180 <= 0.05 * share.due * 180 + ahead * weight


@settings(FEW, max_examples=20)
@given(randoms)
def test_12_no_backfilled_job_delays_a_hard_reservation_when_predictions_are_exact(
    random: Random,
) -> None:
    classes = {1: HIGH, 2: NORMAL, 3: NORMAL, 4: LOW}
    jobs = [
        arrival(
            owner := random.randint(1, 4),
            random.uniform(0, 120),
            random.uniform(1, 30),
            cpu=random.choice([1, 1, 2, 6, 8]),
            memory=random.choice([128, 512, 3000]),
            job_class=classes[owner],
        )
        for _ in range(60)
    ]
    engine, promises = Engine(), {}
    simulation = Simulation(load(jobs), engine)

    for decided in simulation.steps():
        kept = decided.reservation
        if kept is not None and is_hard(kept, simulation.now):
            promises.setdefault(kept.job_id, (kept.promised_at - BEGIN).total_seconds())

    late = [job for job, at in promises.items() if simulation.starts[job] - at > 0.001]
    assert promises
    assert not late


def stream(random: Random, owners: Iterable[int], longest: float, until: float) -> list[Arrival]:
    """Make narrow jobs of several owners, half as many again as the machine can run."""
    jobs: list[Arrival] = []
    at = 0.0
    while (at := at + random.expovariate(1.5 * 8 / (longest / 2))) < until:
        seconds = random.uniform(longest / 4, longest)
        jobs.append(arrival(random.choice(list(owners)), at, seconds))
    return jobs


@settings(FEW, max_examples=4)
@given(randoms)
def test_a_wide_job_behind_an_endless_stream_of_narrow_ones_starts_soon(random: Random) -> None:
    longest = 6.0
    wide = arrival(9, random.uniform(60, 120), 10, cpu=8)
    workload = load([*stream(random, range(1, 6), longest, 200), wide], hours=200 / 3600)
    simulation = Simulation(workload, Engine())

    simulation.run()

    waited = simulation.starts[wide.id] - wide.at
    assert waited <= RESERVATION_HARDENS.total_seconds() + longest


def test_a_small_users_normal_job_starts_within_two_seconds_beside_an_express_burst() -> None:
    weights = {1: 4.0, 2: 2.0, 3: 1.0, 4: 1.0}
    classes = {1: NORMAL, 2: NORMAL, 3: NORMAL, 4: CRITICAL}
    jobs = [
        arrival(owner, seconds=0.1 + 0.1 * (number % 5), job_class=classes[owner])
        for owner in weights
        for number in range(1000)
    ]
    small = arrival(5, at=15.0, seconds=0.2, name="small")
    workload = load(
        [*jobs, small],
        accounts=[Account(owner, weight=weight) for owner, weight in weights.items()],
        capacities=((0.0, Resources(8, 4096, 8)),),
        hours=40 / 3600,
        drain=False,
    )

    runs = Simulation(workload, Engine()).run()

    (started,) = [run.started for run in runs if run.job.name == "small"]
    assert started is not None
    assert started - 15.0 < 2
