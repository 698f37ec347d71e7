"""What one real worker does with jobs, good and bad."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from scheduler.models import Attempt, JobType
from scheduler.states import JobClass, JobStatus
from tests.services import Services, eventually
from tests.tasks.works import Works

pytestmark = [pytest.mark.system, pytest.mark.slow]


@pytest.fixture(scope="module")
def works(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Works]:
    with Works(services, tmp_path_factory.mktemp("works")) as works:
        yield works


def took(act: Callable[[], object]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


def test_a_worker_registers_itself_its_types_and_plain_tasks(works: Works) -> None:
    entry = works.entry()

    assert entry is not None
    assert (entry.state, entry.processes_max, entry.processes_min) == ("online", 4, 2)
    assert entry.queues == list(JobClass)
    with Session(works.engine) as session:
        known = set(session.scalars(select(JobType.name)))
    assert {"simulate", "http_request", "odd.add"} <= known
    assert "fairq.run" not in known


def test_a_job_runs_to_completion(works: Works) -> None:
    attempt = works.submit(payload={"duration_seconds": 0.2, "result": {"a": 1}})

    assert works.wait(attempt) is JobStatus.COMPLETED
    assert works.jobs.look(attempt).result == {"a": 1}


def test_a_plain_celery_task_is_a_job(works: Works) -> None:
    attempt = works.submit("odd.add", payload={"a": 2, "b": 3})

    assert works.wait(attempt) is JobStatus.COMPLETED
    assert works.jobs.look(attempt).result == 5


def test_a_message_that_comes_twice_is_run_once(works: Works) -> None:
    attempt = works.running(payload={"duration_seconds": 0.5})
    works.send(attempt)
    works.wait(attempt)
    works.send(attempt)
    last = works.submit()
    works.wait(last)

    with Session(works.engine) as session:
        runs = session.scalars(select(Attempt).where(Attempt.job_id == attempt[0])).all()
    assert len(runs) == 1
    assert works.jobs.status(attempt) is JobStatus.COMPLETED


@pytest.mark.parametrize("kind", ["odd.loop_in_python", "odd.sleep_in_one_call"])
def test_a_job_that_does_not_look_is_cancelled_within_seconds(works: Works, kind: str) -> None:
    attempt = works.running(kind)
    pid = works.pid_of(attempt)

    works.cancel(attempt)

    assert took(lambda: works.wait(attempt)) < 6
    assert works.jobs.status(attempt) is JobStatus.CANCELLED
    assert psutil.pid_exists(pid)


def test_a_loop_in_c_is_cancelled_by_ending_its_process(works: Works) -> None:
    attempt = works.running("odd.loop_in_c")
    pid = works.pid_of(attempt)

    works.cancel(attempt)

    assert works.wait(attempt) is JobStatus.CANCELLED
    assert not psutil.pid_exists(pid)
    eventually(lambda: len(works.children()) >= 2)


def test_a_job_is_stopped_at_its_limit_and_its_process_lives_on(works: Works) -> None:
    attempt = works.running("odd.sleep_in_one_call", timeout_seconds=1.5)
    pid = works.pid_of(attempt)

    works.wait(attempt, JobStatus.RETRYING)

    assert works.jobs.look(attempt).error_type == "TimeLimitExceeded"
    assert psutil.pid_exists(pid)


def test_a_loop_in_c_is_killed_at_its_hard_limit(works: Works) -> None:
    attempt = works.running("odd.loop_in_c", timeout_seconds=1.0)
    pid = works.pid_of(attempt)

    works.wait(attempt, JobStatus.RETRYING)

    job = works.jobs.look(attempt)
    assert (job.error_type, job.crashes) == ("TimeLimitExceeded", 0)
    assert "killed" in (job.error_message or "")
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("by", ["kill", "itself"])
def test_a_process_that_dies_loses_its_own_job_only_and_is_replaced(works: Works, by: str) -> None:
    other = works.running(payload={"duration_seconds": 3})
    if by == "kill":
        attempt = works.running("odd.sleep_in_one_call")
        os.kill(works.pid_of(attempt), signal.SIGKILL)
    else:
        attempt = works.submit("odd.vanish")

    works.wait(attempt, JobStatus.RETRYING)

    job = works.jobs.look(attempt)
    assert (job.error_type, job.crashes) == ("WorkerLost", 1)
    assert works.wait(other) is JobStatus.COMPLETED
    assert works.wait(works.submit()) is JobStatus.COMPLETED


def test_a_new_process_holds_no_connection_of_its_parent(works: Works) -> None:
    before = {child.pid for child in works.children()}
    os.kill(min(before), signal.SIGKILL)

    (new,) = eventually(lambda: [one for one in works.children() if one.pid not in before])

    eventually(lambda: not new.net_connections("inet"))
    assert psutil.Process(works.process.pid).net_connections("inet")
    assert works.wait(works.submit()) is JobStatus.COMPLETED


def test_leases_are_renewed_although_the_job_holds_the_interpreter(works: Works) -> None:
    attempt = works.running("odd.loop_in_c")

    def lease() -> Any:
        active = works.jobs.active(attempt)
        return active and active.lease_until

    first = lease()
    eventually(lambda: lease() > first)
    works.cancel(attempt)
    works.wait(attempt)
