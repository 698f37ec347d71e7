"""The demonstration: its users and its load."""

import random

import pytest
from redis import Redis
from sqlalchemy.orm import Session

from scheduler.events import Announcer
from scheduler.models import Job, User
from scheduler.store.submission import submit
from tasks import kinds
from tasks.catalogue import CATALOGUE
from tests.factories import make_type
from webapp import demo
from webapp.passwords import verify_password

SEED = 7


@pytest.fixture
def types(store: Session) -> None:
    """The types as workers register them."""
    assert kinds.__name__
    for kind in CATALOGUE:
        made = make_type(store, kind.name)
        made.payload_schema = kind.payload_schema
    store.commit()


def test_passwords_are_told_once(store: Session) -> None:
    said: list[str] = []

    first = demo.make_users(store, say=said.append)
    second = demo.make_users(store, say=said.append)

    assert first == second
    assert len(said) == 3
    for line, (username, weight) in zip(said, demo.WEIGHTS.items(), strict=True):
        user = store.query(User).filter_by(username=username).one()
        assert user.weight == weight
        assert verify_password(user.password_hash, line.rsplit(" ", 1)[1])


@pytest.mark.usefixtures("types")
def test_everything_it_submits_is_accepted(store: Session) -> None:
    owner = demo.make_users(store, say=lambda _: None)["ann"]
    chance = random.Random(SEED)  # noqa: S311 - a load, not a secret

    for _ in range(30):
        submit(store, owner, [demo.single(chance)], batch=True)
        submit(store, owner, demo.chain(chance), batch=True)

    assert store.query(Job).count() == 30 + 30 * len(demo.CHAIN)
    assert len({job.type for job in store.query(Job)}) == 1 + len(demo.CHAIN)


@pytest.mark.usefixtures("types")
def test_nobodys_backlog_grows_beyond_its_bound(store: Session, redis_client: Redis) -> None:
    owners = demo.make_users(store, say=lambda _: None)
    chance = random.Random(SEED)  # noqa: S311 - a load, not a secret

    for _ in range(demo.BACKLOG + 10):
        demo.turn(store, Announcer(redis_client), owners, chance)

    for owner in owners.values():
        waiting = store.query(Job).filter_by(owner_id=owner).count()
        assert demo.BACKLOG <= waiting < demo.BACKLOG + len(demo.CHAIN)
