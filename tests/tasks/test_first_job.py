"""What a worker's processes have at hand when their first job arrives."""

import json
import sys

from local import programs
from local.process import Program
from scheduler.settings import Settings
from scheduler.states import JobStatus
from tests.services import clean_environment, run_to_end
from tests.tasks.conftest import Jobs

RUN_ONE = """
import json, sys
from celery import signals
from tasks.app import _process, app

app.loader.init_worker()
signals.worker_init.send(sender=None)
known = set(sys.modules)
signals.worker_process_init.send(sender=None)
_process.runner().run([tuple(json.loads(sys.argv[1]))], worker="w")
_process.close_runner()
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - known}))
"""
SMALL = {"celery", "encodings", "stringprep"}
"""What may be loaded late: a few modules that cost nothing to speak of."""


def test_the_first_job_of_a_process_waits_for_no_import(settings: Settings, jobs: Jobs) -> None:
    attempt = jobs.queue()
    environment = {
        **clean_environment(),
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "FAIRQ_HOME": str(settings.home),
        "FAIRQ_SECRET_KEY": settings.secret_key,
    }
    command = (sys.executable, "-c", RUN_ONE, json.dumps(attempt))

    said = run_to_end(
        Program(name="child", command=command, environment=environment, directory=programs.ROOT)
    )

    assert jobs.status(attempt) is JobStatus.COMPLETED
    assert set(said.split()) <= SMALL
