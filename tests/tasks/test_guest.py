"""Another Celery application whose tasks a worker runs."""

import subprocess
import sys
from pathlib import Path

import pytest

from local.programs import ROOT
from scheduler.settings import Settings
from tests.services import clean_environment

PROJECT = {
    "guest/__init__.py": "",
    "guest/celery.py": """
from celery import Celery
app = Celery("guest", broker="memory://", include=["guest.work"])
""",
    "guest/work.py": """
from celery import shared_task
from guest.celery import app

@app.task
def double(number):
    return 2 * number

@shared_task(name="shout")
def shout(text):
    return text.upper()
""",
    "broken.py": "raise RuntimeError('no licence')",
}


LOOK = """
import sys
from celery import Celery, current_app
from scheduler.errors import SettingsInvalid
from tasks.guest import tasks_of

host = Celery("host")
try:
    tasks = tasks_of(sys.argv[1])
except SettingsInvalid as problem:
    sys.exit(str(problem))
assert current_app._get_current_object() is host
print(tasks["guest.work.double"](number=21), tasks["shout"](text="loud"), tasks["shout"].app.main)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in PROJECT.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def python(project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python beside the project; applications of one process would share their tasks."""
    return subprocess.run(
        [sys.executable, *arguments],
        env={**clean_environment(), "PYTHONPATH": str(project), **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", ["guest", "guest.celery:app"])
def test_its_tasks_are_found_as_by_a_worker_of_its_own_and_it_does_not_become_current(
    project: Path, name: str
) -> None:
    looked = python(project, "-c", LOOK, name)

    assert looked.stdout == "42 LOUD guest\n", looked.stderr


@pytest.mark.parametrize(
    ("name", "why"), [("nowhere", "No module named 'nowhere'"), ("broken", "no licence")]
)
def test_one_that_cannot_be_loaded_is_named_with_the_reason(
    project: Path, name: str, why: str
) -> None:
    told = python(project, "-c", LOOK, name).stderr

    assert told.startswith(f"FAIRQ_CELERY_APP '{name}' cannot be loaded: ")
    assert why in told


def test_a_worker_does_not_start_without_the_tasks_it_is_to_run(
    project: Path, settings: Settings
) -> None:
    ended = python(
        project,
        *("-m", "celery", "-A", "tasks.app", "worker", "-Q", "low", "-c", "1"),
        DATABASE_URL=settings.database_url,
        REDIS_URL=settings.redis_url,
        FAIRQ_SECRET_KEY=settings.secret_key,
        FAIRQ_CELERY_APP="broken",
    )

    assert ended.returncode != 0
    assert "FAIRQ_CELERY_APP 'broken' cannot be loaded: RuntimeError('no licence')" in ended.stderr
