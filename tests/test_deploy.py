"""What a larger installation starts from says the same as the compose file and the code."""

import re
from pathlib import Path

import pytest

from local.programs import ROOT
from scheduler.settings import VARIABLES
from tests.compose import ANSWERS, SERVICES, filled_in
from webapp.api.jobs import BATCH_BODY_LIMIT
from webapp.schemas.streams import WAIT_LIMIT

DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())


def lines_of(unit: Path, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", unit.read_text(), re.MULTILINE)


def environment() -> dict[str, str]:
    text = (DEPLOY / "fairq.env").read_text()
    return dict(re.findall(r"^([A-Z_]+)=(.*)$", text, re.MULTILINE))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_starts_what_the_container_starts(unit: Path) -> None:
    service = unit.stem.removeprefix("fairq-").removesuffix("@")
    answers = ANSWERS | {"FAIRQ_WORKER_PROCESSES": "${FAIRQ_WORKER_PROCESSES}"}
    command = [
        "--hostname=%i@%%h" if word == "--hostname=worker@%h" else word
        for word in filled_in(SERVICES[service]["command"], answers)
    ]

    assert lines_of(unit, "ExecStart") == [f"/opt/fairq/.venv/bin/{' '.join(command)}"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_comes_back_whatever_happens(unit: Path) -> None:
    assert lines_of(unit, "Restart") == ["always"]
    assert lines_of(unit, "StartLimitIntervalSec") == ["0"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_reads_the_environment_it_needs(unit: Path) -> None:
    needed = set(re.findall(r"\$\{(FAIRQ_\w+)\}", unit.read_text()))

    assert lines_of(unit, "EnvironmentFile") == ["/etc/fairq/fairq.env"]
    assert all(environment()[name] for name in needed)


def test_a_worker_is_asked_before_it_is_interrupted() -> None:
    unit = DEPLOY / "systemd" / "fairq-worker@.service"

    assert int(lines_of(unit, "TimeoutStopSec")[0]) > int(environment()["FAIRQ_DRAIN_SECONDS"])
    assert lines_of(unit, "KillSignal") == []
    assert lines_of(unit, "KillMode") == ["mixed"]


def test_the_environment_names_settings_and_holds_no_secret() -> None:
    given = environment()

    assert set(given) <= {variable.name for variable in VARIABLES}
    assert not given["FAIRQ_SECRET_KEY"]
    assert all(":PASSWORD@" in given[name] for name in ("DATABASE_URL", "REDIS_URL"))


def test_the_proxy_tells_who_asks_and_is_believed() -> None:
    assert "proxy_set_header X-Forwarded-For $remote_addr;" in (DEPLOY / "nginx.conf").read_text()
    assert environment()["FAIRQ_PROXIES"] == "1"


def test_the_proxy_lets_the_largest_batch_through() -> None:
    limit = re.search(r"client_max_body_size (\d+)m;", (DEPLOY / "nginx.conf").read_text())

    assert limit
    assert int(limit[1]) * 1024 * 1024 == BATCH_BODY_LIMIT


def test_the_proxy_bears_the_silence_of_who_waits_for_a_job() -> None:
    patience = re.search(r"proxy_read_timeout (\d+)s;", (DEPLOY / "nginx.conf").read_text())

    assert patience
    assert int(patience[1]) > WAIT_LIMIT
