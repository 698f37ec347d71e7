"""Reads ``docker-compose.yml`` as Compose does, as far as the tests need it."""

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from local.programs import ROOT
from tests.services import ADMIN

FILE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
OURS = ("migrate", "web", "scheduler", "worker", "flower")
LASTING = tuple(name for name in SERVICES if name != "migrate")
FLOWER = ("watcher", "flower-password-for-tests")
ANSWERS = {
    "POSTGRES_PASSWORD": "postgres1",
    "VALKEY_PASSWORD": "valkey1",
    "FAIRQ_SECRET_KEY": "a-secret-key-for-tests-only",
    "FAIRQ_ADMIN_USERNAME": ADMIN[0],
    "FAIRQ_ADMIN_PASSWORD": ADMIN[1],
    "FAIRQ_WORKER_PROCESSES": "2,1",
    "FLOWER_BASIC_AUTH": ":".join(FLOWER),
}
"""What a person would write into .env."""

_REFERENCE = re.compile(r"\$(?:\$|\{(\w+)(?::([-?])([^}]*))?\})")


def references(value: Any) -> Iterator[tuple[str, str | None, str | None]]:
    """Every ``${NAME}`` in a part of the file, with what follows its name."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from references(item)
    elif isinstance(value, str):
        yield from (found.groups() for found in _REFERENCE.finditer(value) if found[1])


def filled_in(value: Any, answers: Mapping[str, str]) -> Any:
    """Return a part of the file with every ``${NAME}`` replaced, as Compose does it."""
    if isinstance(value, Mapping):
        return {name: filled_in(item, answers) for name, item in value.items()}
    if isinstance(value, list):
        return [filled_in(item, answers) for item in value]
    if not isinstance(value, str):
        return value

    def fill(found: re.Match[str]) -> str:
        name, kind, text = found.groups()
        if name is None:
            return "$"
        if not answers.get(name) and kind == "?":
            raise AssertionError(f"{name} is required")
        return answers.get(name) or text or ""

    return _REFERENCE.sub(fill, value)


def check_of(name: str) -> list[str]:
    """Return a service's health check as a command."""
    how, *words = filled_in(SERVICES[name], ANSWERS)["healthcheck"]["test"]
    assert how in {"CMD", "CMD-SHELL"}
    return words if how == "CMD" else ["sh", "-c", *words]


def example() -> dict[str, str]:
    """Return the variables of .env.example, those commented out included."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(re.findall(r"^#?([A-Z_]+)=(.*)$", "\n".join(lines), re.MULTILINE))


def unpack_image(directory: Path) -> None:
    """Copy what .dockerignore lets into the image, and nothing else."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    for rule in rules[1:]:
        source = ROOT / rule.removeprefix("!")
        if source.is_dir():
            shutil.copytree(source, directory / source.name)
        elif rule.startswith("!"):
            shutil.copy(source, directory)
