"""Real workers that grow, end and outlive their services; each test starts its own."""

import re
import signal
import time
from pathlib import Path

import pytest

from scheduler.states import JobClass, JobStatus
from scheduler.store import fleet
from tests.chaos.proxy import Proxy
from tests.services import OwnServices, Services, eventually
from tests.tasks.works import Works

pytestmark = [pytest.mark.system, pytest.mark.slow]


def test_a_worker_grows_while_work_waits(services: Services, tmp_path: Path) -> None:
    with Works(services, tmp_path, FAIRQ_WORKER_PROCESSES="8,2") as works:
        assert len(works.children()) == 2

        attempts = [works.submit(payload={"duration_seconds": 8}) for _ in range(8)]

        eventually(lambda: len(works.children()) == 8, within=20)
        for attempt in attempts:
            works.wait(attempt, JobStatus.RUNNING)
        eventually(lambda: (entry := works.entry()) and entry.processes == 8)


def test_a_busy_worker_takes_the_most_urgent_message_first(
    services: Services, tmp_path: Path
) -> None:
    with Works(services, tmp_path, FAIRQ_WORKER_PROCESSES="1,1") as works:
        works.running(payload={"duration_seconds": 1.5})
        attempts = [works.submit(job_class=name) for name in reversed(JobClass) for _ in range(2)]

        for attempt in attempts:
            works.wait(attempt)

        started = {attempt: works.jobs.look(attempt).started_at for attempt in attempts}
        order = [works.jobs.look(attempt).job_class for attempt in sorted(started, key=started.get)]
        assert order == [name for name in JobClass for _ in range(2)]


def test_a_drained_worker_takes_nothing_finishes_what_runs_and_takes_work_again(
    services: Services, tmp_path: Path
) -> None:
    with Works(services, tmp_path, FAIRQ_WORKER_PROCESSES="2,2") as works:
        running = works.running(payload={"duration_seconds": 6})

        works.drain()
        attempts = [works.submit(job_class=each) for each in reversed(JobClass)]

        assert works.wait(running) is JobStatus.COMPLETED
        assert {works.jobs.status(each) for each in attempts} == {JobStatus.QUEUED}
        assert works.waiting() == 4
        entry = works.entry()
        assert entry is not None
        assert (entry.state, fleet.state_of(entry)) == ("online", "draining")

        works.resume()
        assert {works.wait(each) for each in attempts} == {JobStatus.COMPLETED}


def test_a_drained_worker_that_starts_again_takes_nothing(
    services: Services, tmp_path: Path
) -> None:
    with Works(services, tmp_path, FAIRQ_WORKER_PROCESSES="1,1") as works:
        works.drain()
        attempt = works.submit()

        works.start_again()
        for _ in range(2):
            works.next_heartbeat()
        assert works.jobs.status(attempt) is JobStatus.QUEUED

        works.resume()
        assert works.wait(attempt) is JobStatus.COMPLETED


def test_a_drain_outlives_a_broker_that_is_restarted(tmp_path: Path) -> None:
    with (
        OwnServices(tmp_path / "services") as services,
        Works(services, tmp_path, FAIRQ_WORKER_PROCESSES="1,1") as works,
    ):
        works.drain()

        services.restart_valkey()
        eventually(lambda: works.log().count("Connected to") == 2, saying=works.log)
        attempt = works.submit()
        for _ in range(2):
            works.next_heartbeat()
        assert works.jobs.status(attempt) is JobStatus.QUEUED

        works.resume()
        assert works.wait(attempt) is JobStatus.COMPLETED


def test_a_worker_has_no_more_processes_than_it_may(services: Services, tmp_path: Path) -> None:
    with Works(services, tmp_path, FAIRQ_WORKER_PROCESSES="4,1") as works:
        name = works.name()
        attempts = [works.running(payload={"duration_seconds": 5}) for _ in range(4)]
        assert len(works.children()) == 4

        works.jobs.run(lambda session: fleet.resize(session, name, by=-3))
        assert {works.wait(each) for each in attempts} == {JobStatus.COMPLETED}
        eventually(lambda: len(works.children()) == 1, saying=works.log)
        waiting = [works.submit(payload={"duration_seconds": 1}) for _ in range(3)]
        works.wait(waiting[0])
        assert len(works.children()) == 1

        works.jobs.run(lambda session: fleet.resize(session, name, by=1))
        more = [works.submit(payload={"duration_seconds": 4}) for _ in range(2)]
        eventually(lambda: len(works.children()) == 2, saying=works.log)
        assert {works.wait(each) for each in waiting + more} == {JobStatus.COMPLETED}


def test_a_worker_asked_to_end_finishes_what_runs_and_leaves(
    services: Services, tmp_path: Path
) -> None:
    with Works(services, tmp_path) as works:
        attempts = [works.running(payload={"duration_seconds": 2}) for _ in range(2)]

        works.process.send(signal.SIGTERM)
        eventually(lambda: (entry := works.entry()) and entry.state == "draining")
        late = works.submit()

        eventually(lambda: works.process.exit_code() is not None)
        assert {works.jobs.status(attempt) for attempt in attempts} == {JobStatus.COMPLETED}
        entry = works.entry()
        assert entry is not None
        assert entry.state == "stopped"
        assert works.jobs.status(late) in {JobStatus.QUEUED, JobStatus.READY}


def test_a_worker_asked_to_end_at_once_gives_back_what_runs(
    services: Services, tmp_path: Path
) -> None:
    with Works(services, tmp_path) as works:
        attempt = works.running(payload={"duration_seconds": 60})

        works.process.send(signal.SIGQUIT)

        works.wait(attempt, JobStatus.READY)
        eventually(lambda: (entry := works.entry()) and entry.state == "stopped")
        job = works.jobs.look(attempt)
        assert (job.attempts_forgiven, job.crashes) == (1, 0)


def test_a_worker_outlives_a_broker_that_goes_away_while_a_job_runs(tmp_path: Path) -> None:
    with OwnServices(tmp_path / "services") as services, Works(services, tmp_path) as works:
        running = works.running(payload={"duration_seconds": 5})
        services.kill_valkey()
        eventually(lambda: works.log().count("Trying again in") >= 3)
        services.start_valkey()

        assert works.wait(running) is JobStatus.COMPLETED
        assert works.wait(works.submit()) is JobStatus.COMPLETED
        assert works.process.exit_code() is None
        pauses = [float(pause) for pause in re.findall(r"Trying again in ([\d.]+)", works.log())]
        assert max(pauses) <= 3  # it is back soon after its broker


def test_a_worker_whose_connections_died_without_a_word_takes_messages_again(
    services: Services, tmp_path: Path
) -> None:
    with (
        Proxy(services.redis_url) as wire,
        Works(services, tmp_path, REDIS_URL=wire.through(services.redis_url)) as works,
    ):
        works.wait(works.submit())
        attempt = works.jobs.queue()

        wire.deafen()

        def is_done_when_sent_again() -> bool:  # what went to a dead connection is lost
            works.send(attempt)
            return works.jobs.status(attempt) is JobStatus.COMPLETED

        eventually(is_done_when_sent_again, every=1.0, saying=works.log)


def test_an_outcome_outlasts_postgres_and_the_hard_limit(tmp_path: Path) -> None:
    with OwnServices(tmp_path / "services") as services, Works(services, tmp_path) as works:
        attempt = works.running(payload={"duration_seconds": 1, "result": 1}, timeout_seconds=2)
        hard_limit = time.monotonic() + 2 + 5
        services.stop_postgres()

        eventually(lambda: time.monotonic() > hard_limit + 2)
        services.start_postgres()

        assert works.wait(attempt) is JobStatus.COMPLETED
        assert works.jobs.look(attempt).result == 1


def test_a_worker_whose_time_to_finish_is_over_gives_back_what_runs(
    services: Services, tmp_path: Path
) -> None:
    with Works(services, tmp_path, FAIRQ_DRAIN_SECONDS="2") as works:
        attempt = works.running(payload={"duration_seconds": 60})

        works.process.send(signal.SIGTERM)

        works.wait(attempt, JobStatus.READY)
        eventually(lambda: works.process.exit_code() is not None)
        job = works.jobs.look(attempt)
        assert (job.attempts_forgiven, job.crashes) == (1, 0)
        entry = works.entry()
        assert entry is not None
        assert entry.state == "stopped"
