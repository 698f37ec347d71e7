"""A whole Fairq for each test: its own database, its own processes."""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.services import OwnServices, Services, Stack
from tests.system.client import Client


@pytest.fixture
def stack(services: Services, tmp_path: Path) -> Iterator[Stack]:
    """Web and scheduler run; tests start the workers they need."""
    with Stack(services, tmp_path) as stack:
        stack.start("web", "scheduler")
        yield stack


@pytest.fixture(scope="package")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServices]:
    """Services that may be stopped by whoever starts them again."""
    with OwnServices(tmp_path_factory.mktemp("own")) as services:
        yield services


@pytest.fixture
def own_stack(own: OwnServices, tmp_path: Path) -> Iterator[Stack]:
    """Web, scheduler and a worker run on services that may be stopped."""
    with Stack(own, tmp_path) as stack:
        stack.start("web", "scheduler")
        stack.start_worker()
        yield stack


@pytest.fixture
def admin(stack: Stack) -> Iterator[Client]:
    client = Client.admin(stack)
    yield client
    client.close()


_TOLD_LINES = 60


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the processes of a stack said last when its test fails."""
    report = yield
    stack = getattr(item, "funcargs", {}).get("stack")
    if call.when == "call" and report.failed and isinstance(stack, Stack):
        for name in stack.names():
            last = stack.log(name).splitlines()[-_TOLD_LINES:]
            report.sections.append((f"last lines of {name}", "\n".join(last)))
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/system/" in str(item.path):
            item.add_marker(pytest.mark.system)
