"""A whole Fairq for each test: its own database, its own processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services import Services, Stack
from tests.system.client import Client


@pytest.fixture
def stack(services: Services, tmp_path: Path) -> Iterator[Stack]:
    """Web and scheduler run; tests start the workers they need."""
    with Stack(services, tmp_path) as stack:
        stack.start("web", "scheduler")
        yield stack


@pytest.fixture
def admin(stack: Stack) -> Iterator[Client]:
    client = Client.admin(stack)
    yield client
    client.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/system/" in str(item.path):
            item.add_marker(pytest.mark.system)
