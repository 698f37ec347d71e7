"""Two schedulers in constant trouble keep every promise; without the fence they do not."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from redis import Redis
from sqlalchemy.orm import Session

from scheduler.database import open_redis
from scheduler.models import SchedulerLease
from scheduler.store import leader
from tests.chaos.turns.auditor import Broken
from tests.chaos.turns.faults import AT_COMMIT, Fault, Strike
from tests.chaos.turns.world import ACTS, World, world
from tests.conftest import make_settings
from tests.services import Services

MOST_POINTS = 60
WHOLE = (Phase.explicit, Phase.reuse, Phase.generate)  # a whole run takes too long to shrink
SEEDS = st.integers(0, 2**32 - 1)
STORIES = st.lists(st.tuples(st.sampled_from(ACTS), SEEDS), min_size=30, max_size=50)


@pytest.fixture(scope="module")
def database_url(services: Services) -> str:
    return services.fresh_database()


@pytest.fixture(scope="module")
def redis(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    client = open_redis(make_settings(services, tmp_path_factory.mktemp("home")))
    yield client
    client.flushdb()
    client.close()


@pytest.fixture
def here(database_url: str, redis: Redis) -> Iterator[World]:
    with world(database_url, redis) as made:
        yield made


@settings(
    max_examples=6,
    deadline=None,
    phases=WHOLE,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(happens=STORIES, run_ahead=st.booleans())
def test_in_any_trouble_nothing_is_lost_doubled_or_beyond_the_caps(
    database_url: str, redis: Redis, happens: list[tuple[str, int]], *, run_ahead: bool
) -> None:
    with world(database_url, redis, run_ahead=run_ahead) as made:
        for name, seed in happens:
            made.act(name, seed)
        made.settle()


@pytest.mark.parametrize("fault", [Fault.CRASH, Fault.UNSEATED, Fault.CUT, *sorted(AT_COMMIT)])
def test_a_fault_at_any_point_of_a_turn_is_survived(here: World, fault: Fault) -> None:
    points = _strike_at_every_point(here, fault)
    here.settle()

    assert points >= (2 if fault in AT_COMMIT else 12)


def test_without_the_fence_the_same_faults_break_a_promise(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader, "fence", _let_anybody_pass)
    monkeypatch.setattr(leader, "remember", _remember_for_anybody)

    with pytest.raises(Broken, match=r"epoch .* admitted after|CPU units held"):
        _strike_at_every_point(here, Fault.UNSEATED)


def _strike_at_every_point(here: World, fault: Fault) -> int:
    """Strike one turn after the other, each a point later, until one has no more points.

    In each of them there is room for some of what waits, and not for all of it.
    """
    one, other = here.nodes
    for after in range(MOST_POINTS):
        here.clear()
        other.lease.release()
        one.round()
        here.want_more_than_fits()
        struck = here.counts[fault]
        one.round(Strike(fault, after))
        here.auditor.look()
        if fault in AT_COMMIT:
            here.act("sweep", after)
        if here.counts[fault] == struck:
            return after
    raise AssertionError("a turn never ended")


def _let_anybody_pass(session: Session, *, epoch: int) -> leader.Memory:
    lease = session.get_one(SchedulerLease, 1)
    return leader.Memory(lease.clock, lease.reservation, lease.starts)


def _remember_for_anybody(session: Session, memory: leader.Memory, *, epoch: int) -> None:
    lease = session.get_one(SchedulerLease, 1)
    lease.clock, lease.starts = dict(memory.clock), dict(memory.starts)
    session.flush()
