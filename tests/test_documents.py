"""The documents say what the code does."""

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import tasks.kinds
from fairq.sign_in import TOKEN_VARIABLE, URL_VARIABLE
from local import programs
from local.programs import ROOT
from scheduler.callback import BACKOFF, MOST_TRIES, TIMEOUT
from scheduler.settings import VARIABLES, Settings
from scheduler.states import DISCARD, MOVES, CallbackState, JobStatus
from scheduler.store.callbacks import AT_ONCE_PER_OWNER, OVERLAP
from scheduler.store.work import Claim
from tasks.catalogue import CATALOGUE
from tasks.context import Context, Notebook
from tests.bench.__main__ import BENCHMARKS
from tests.readme import snippet, snippets
from webapp import create_app
from webapp.cli import tokens, users

NAMES = (
    *("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "deploy/README.md"),
    *("docs/callbacks.md", "docs/celery-project.md", "docs/client.md", "docs/command-line.md"),
    "docs/test-kit.md",
)
TEXTS = {name: (ROOT / name).read_text() for name in NAMES}
ARCHITECTURE = TEXTS["ARCHITECTURE.md"]
PACKAGES = ("scheduler", "tasks", "webapp", "fairq", "local")

ENVIRONMENT = {
    "DATABASE_URL": "postgresql://nobody@127.0.0.1/nothing",
    "REDIS_URL": "redis://127.0.0.1/0",
    "FAIRQ_SECRET_KEY": "a-secret-key-for-tests-only",
    "FAIRQ_WORKER_PROCESSES": "8,1",
}
SETTINGS = Settings.from_env(ENVIRONMENT)
CLAIM = Claim(1, 1, "first", 1, "ann", "greet", {}, 10.0, 128, is_last_attempt=False)

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"(?:[\w.-]+/)+[\w.@-]*|[\w-]+\.(?:py|md|yml|toml|txt)")


def rows(text: str, marker: str) -> list[list[str]]:
    """Return the cells of the table behind a marker, without its head."""
    _, _, behind = text.partition(marker)
    table = re.search(r"\n\|.*?\n\n", behind, re.DOTALL)
    assert table, marker
    lines = table[0].strip().splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def moves() -> set[tuple[str, str]]:
    return {(str(one), str(other)) for one, targets in MOVES.items() for other in targets}


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (ROOT / package).rglob("*.py")


def anchors(text: str) -> set[str]:
    """Return the addresses of a document's headings."""
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads}


# Tables and diagrams


def test_readme_lists_every_setting_as_it_is() -> None:
    expected = [
        [f"`{one.name}`", f"`{one.default}`" if one.default else "none", one.meaning]
        for one in VARIABLES
    ]

    assert rows(TEXTS["README.md"], "<!-- settings:") == expected


def test_the_table_of_moves_is_the_one_that_holds() -> None:
    table = rows(ARCHITECTURE, "<!-- moves:")
    listed = [tuple(cell.strip("`") for cell in cells[:3]) for cells in table]

    assert {(source, target) for source, target, _ in listed} == moves()
    assert len(listed) == len(set(listed))


def test_the_diagram_shows_the_moves_of_the_table() -> None:
    (diagram,) = [one for one in snippets("mermaid", ARCHITECTURE) if "stateDiagram" in one]
    arrows = set(re.findall(r"(\w+) --> (\w+) : (\w+)", diagram))
    table = {
        (cells[0].strip("`"), cells[1].strip("`"), cells[2].strip("`"))
        for cells in rows(ARCHITECTURE, "<!-- moves:")
    }

    assert arrows == table
    assert set(re.findall(r"\[\*\] --> (\w+) : submit", diagram)) == {
        JobStatus.SCHEDULED,
        JobStatus.BLOCKED,
        JobStatus.READY,
    }


def test_every_verb_is_named() -> None:
    written = {
        verb
        for path in (ROOT / "scheduler" / "store").glob("*.py")
        for line in path.read_text().splitlines()
        if " AS verb" in line
        for verb in re.findall(r"'(\w+)'", line.partition(" AS verb")[0])
    }
    table = {cells[2].strip("`") for cells in rows(ARCHITECTURE, "<!-- moves:")}

    assert written == table | {"submit", "request_cancel", "change", DISCARD}


def test_every_kind_of_live_message_and_event_is_named() -> None:
    def quoted(path: str, pattern: str) -> set[str]:
        return set(re.findall(pattern, (ROOT / path).read_text()))

    kinds = {cells[0].strip("`") for cells in rows(ARCHITECTURE, "as JSON with a `kind`:")}
    events = {cells[0].strip("`") for cells in rows(ARCHITECTURE, "clients never name a room.")}
    emitted = quoted("webapp/relay.py", r'_emit\(\s*"(\w+)"') | quoted(
        "webapp/live.py", r'(?:emit|_say)\(\s*"(\w+)"'
    )

    assert kinds == quoted("scheduler/events.py", r'"kind": "(\w+)"')
    assert events == emitted


def test_the_numbers_told_of_callbacks_are_those_that_hold() -> None:
    told = " ".join(TEXTS["docs/callbacks.md"].split())

    assert f"after {TIMEOUT.total_seconds():g} s the try has failed" in told
    assert f"after {BACKOFF['base_delay_seconds']:g} seconds" in told
    assert f"{BACKOFF['backoff_multiplier']:g} times as long" in told
    assert f"up to {BACKOFF['max_delay_seconds'] / 3600:g} hour" in told
    assert f"{MOST_TRIES} tries" in told
    assert f"signs as well for {OVERLAP.total_seconds() / 3600:g} hours" in told
    assert f"Of one account {AT_ONCE_PER_OWNER} callbacks" in told


def test_the_states_of_a_callback_are_named() -> None:
    told = TEXTS["docs/callbacks.md"]

    assert f"({', '.join(f'`{state}`' for state in CallbackState)})" in told


def test_the_changelog_names_every_ready_type() -> None:
    assert len(tasks.kinds.__all__) <= len(CATALOGUE)
    assert all(f"`{kind.name}`" in TEXTS["CHANGELOG.md"] for kind in CATALOGUE)


def test_readme_names_every_benchmark() -> None:
    named = set(re.findall(r"\(tests/bench/(\w+)\.py\)", TEXTS["README.md"]))

    assert named == set(BENCHMARKS)


# Names of files and of things in them


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    links = [link for link in _LINK.findall(TEXTS[name]) if not link.startswith("http")]
    missing = []
    for link in links:
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            missing.append(link)

    assert not missing


@pytest.mark.parametrize("name", NAMES)
def test_every_file_that_is_named_exists(name: str) -> None:
    words = [word for word in _CODE.findall(TEXTS[name]) if _PATH.fullmatch(word)]
    made_at_run_time = {"var/", "var/environment"}
    near = [(ROOT / name).parent, ROOT, ROOT / "scheduler", ROOT / "scheduler" / "policy"]
    missing = [
        word
        for word in words
        if word not in made_at_run_time and not any((base / word).exists() for base in near)
    ]

    assert not missing


@pytest.mark.parametrize("name", NAMES)
def test_every_constant_that_is_named_exists(name: str) -> None:
    known = {variable.name for variable in VARIABLES} | {URL_VARIABLE, TOKEN_VARIABLE}
    for path in sources():
        known |= set(re.findall(r"^(_?[A-Z][A-Z_]+)\b.* = ", path.read_text(), re.MULTILINE))
    named = {word for word in _CODE.findall(TEXTS[name]) if re.fullmatch(r"_?[A-Z]+_[A-Z_]+", word)}
    of_others = {"FOR NO KEY UPDATE", "KEY SHARE", "SKIP LOCKED", "RLIMIT_AS", "RLIMIT_DATA"}

    assert named - of_others <= known


# Commands and snippets


@pytest.mark.parametrize("name", NAMES)
def test_shell_snippets_can_be_parsed(name: str) -> None:
    for block in snippets("sh", TEXTS[name]):
        parsed = subprocess.run(
            ["bash", "-n"], input=block, capture_output=True, text=True, check=False
        )
        assert parsed.returncode == 0, f"{block}\n{parsed.stderr}"


@pytest.mark.parametrize("name", NAMES)
def test_python_snippets_can_be_parsed(name: str) -> None:
    for block in snippets("python", TEXTS[name]):
        ast.parse(block)


def test_readmes_job_type_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CATALOGUE, "_kinds", dict(CATALOGUE._kinds))
    (block,) = [one for one in snippets("python") if "@job_type" in one]

    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})  # noqa: S102 - our own words

    kind = CATALOGUE.get("greet")
    assert kind
    notebook = Notebook(lambda: None)
    context = Context(CLAIM, SETTINGS, notebook)
    payload = kind.payload.model_validate({"name": "Ann"})
    assert kind.handler(context, payload) == {"greeting": "hello, Ann"}
    assert notebook.take().lines


@pytest.mark.parametrize("name", NAMES)
def test_every_program_that_is_named_can_be_run(name: str) -> None:
    text = TEXTS[name]
    scripts = set(re.findall(r"(?<![\w/])bin/(?:fairq|test|up)\b|\.ci/run", text))
    modules = set(re.findall(r"-m (\w[\w.]*)", text))

    assert all((ROOT / script).stat().st_mode & 0o111 for script in scripts)
    for module in modules - {"venv"}:
        assert importlib.util.find_spec(module), module


@pytest.mark.parametrize("name", NAMES)
def test_every_flask_command_that_is_named_exists(name: str) -> None:
    groups = {"users": users, "tokens": tokens}

    for group, command in re.findall(r"--app webapp (\w+) ([\w-]+)", TEXTS[name]):
        assert command in groups[group].commands


def test_the_worker_of_readme_is_the_one_that_is_tested() -> None:
    command = shlex.split(snippet("celery -A tasks.app").splitlines()[-1])
    launched = programs.worker(ENVIRONMENT, name="worker2").command

    assert set(command[1:]) <= set(launched)


def test_options_that_are_named_exist() -> None:
    command = [sys.executable, "-m", "local", "up", "--help"]
    told = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    assert "`bin/up --demo`" in TEXTS["README.md"]
    assert "--demo" in told


def test_containers_that_are_named_exist() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]

    for service in re.findall(r"--scale\s+(\w+)=", TEXTS["README.md"]):
        assert service in services


def test_routes_that_are_named_exist() -> None:
    known = {rule.rule for rule in create_app(SETTINGS).url_map.iter_rules()}
    named = set(re.findall(r"127\.0\.0\.1:8080(/\w*)", TEXTS["README.md"]))

    assert "/jobs" in named
    assert named <= known
