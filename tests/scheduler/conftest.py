"""What tests of the running scheduler share."""

from collections.abc import Iterator

import pytest
from redis import Redis
from sqlalchemy import Engine

from tests.scheduler.installation import Installation, furnish


@pytest.fixture
def here(committed_engine: Engine, redis_client: Redis) -> Iterator[Installation]:
    """A scheduler with one worker of 8 processes, 8 CPU units and 4096 MB."""
    installation = Installation(committed_engine, redis_client)
    installation.do(furnish)
    yield installation
    installation.lease.release()
