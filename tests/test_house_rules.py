"""Rules of the house that no tool checks; each message says which rule, where and why."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scheduler.states import DISCARD, JobStatus
from tests.scheduler.store.test_moves import VERBS

ROOT = Path(__file__).parents[1]
PACKAGES = ("scheduler", "tasks", "webapp", "fairq", "local")
OURS = (*PACKAGES, "migrations", "tests")
STATUS_MODULES = ("scheduler/states.py", "fairq/models.py")
"""Where a job's status has its words: for the server, and for the client, which runs without it."""

STATUS_WORDS = frozenset(JobStatus)
MARKS = re.compile(rf"\b(?:{'TO' + 'DO'}|{'FIX' + 'ME'})\b")
QUOTED_IN_SQL = re.compile(rf"'({'|'.join(STATUS_WORDS)})'")


def _modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def _named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _strings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Yield every string but docstrings, names of tables, keys, and what stands for a status."""
    others = {id(node) for outer in ast.walk(tree) for node in _not_meant(outer)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in others
        ):
            yield node


def _not_meant(node: ast.AST) -> Iterator[ast.AST | None]:
    match node:
        case ast.Expr():  # a docstring
            yield node.value
        case ast.Assign(targets=[ast.Name(id="__tablename__")]):
            yield node.value
        case ast.Dict():
            yield from node.keys  # fields of an answer
            yield from (
                value for key, value in zip(node.keys, node.values, strict=True) if _is_status(key)
            )


def _is_status(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Attribute) and ast.unparse(node.value) == "JobStatus"


@pytest.mark.parametrize("path", _modules(*PACKAGES, "migrations"), ids=_named)
def test_a_module_says_what_it_answers(path: Path) -> None:
    assert ast.get_docstring(_tree(path)), "every module begins with a docstring"


def quoted_status_words(source: str) -> list[tuple[int, str]]:
    """Return the lines of strings that are a status, or quote one as SQL does."""
    found = []
    for node in _strings(ast.parse(source)):
        text = str(node.value)
        if text in STATUS_WORDS:
            found.append((node.lineno, text))
        found += [(node.lineno, quoted[1]) for quoted in QUOTED_IN_SQL.finditer(text)]
    return found


@pytest.mark.parametrize(
    "path",
    [path for path in _modules(*PACKAGES) if _named(path) not in STATUS_MODULES],
    ids=_named,
)
def test_a_status_is_named_in_one_module(path: Path) -> None:
    found = quoted_status_words(path.read_text())

    assert not found, "write JobStatus.X, or :is_x in a verb's statement, not the word itself"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('status = "ready"', 1),
        ("query = \"SELECT 1 WHERE status = 'ready'\"", 1),
        ("query = f\"WHERE status IN ('ready', 'queued') {more}\"", 2),
        ('"""A ready job."""\nname = "ready_at"', 0),
        ('"""ready"""', 0),
        ('counts = {"running": 1}', 0),
        ('words = {JobStatus.FAILED: "failed", "other": "failed"}', 1),
    ],
)
def test_a_quoted_status_is_noticed(source: str, found: int) -> None:
    assert len(quoted_status_words(source)) == found


def commits(source: str) -> list[int]:
    """Return the lines that end a transaction."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"commit", "rollback", "begin"}
    ]


@pytest.mark.parametrize("path", _modules("scheduler/store"), ids=_named)
def test_a_store_function_leaves_the_transaction_to_its_caller(path: Path) -> None:
    assert commits(path.read_text()) == [], "whoever opened the session commits it"


def test_a_commit_is_noticed() -> None:
    assert commits("def f(session):\n    session.commit()") == [2]


@pytest.mark.parametrize("path", _modules(*OURS), ids=_named)
def test_nothing_is_left_to_do(path: Path) -> None:
    marks = MARKS.findall(path.read_text())

    assert not marks, "a thing to do is an issue"


def _verbs() -> Iterator[str]:
    """Yield the words that the store writes into ``job_events.verb``."""
    for path in _modules("scheduler/store"):
        for node in _strings(_tree(path)):
            for line in str(node.value).splitlines():
                told, _, rest = line.partition(" AS verb")
                yield from re.findall(r"'(\w+)'", told) if rest else ()


def test_every_verb_of_the_store_is_tested_from_every_status() -> None:
    tested = {
        "admit": "admit",
        "start": "start",
        "succeed": "succeed",
        "fail": "fail",
        "retry": "retry",
        "give back": "requeue",
        "stop": "cancel",
        "snooze": "snooze",
        "cancel": "cancel",
        "release when due": "release",
        "release by a parent": "release",
        "run again": "run_again",
        "postpone": "postpone",
    }
    # These leave the status of a known job alone.
    others = {"submit", "request_cancel", "change", DISCARD}

    assert set(tested) == set(VERBS), "name here the verb that a new row of the table writes"
    assert set(_verbs()) - others == set(tested.values()), "a verb without a row"


@pytest.mark.parametrize("folder", ["scheduler", "tasks", "webapp", "tests"])
def test_every_folder_with_modules_is_a_package(folder: str) -> None:
    bare = {
        _named(path.parent)
        for path in _modules(folder)
        if not (path.parent / "__init__.py").exists()
    }

    assert not bare, "without __init__.py a test folder hides the package of its name"


def test_package_docstrings_are_all_that_a_package_holds() -> None:
    for package in ("scheduler", "scheduler/store", "scheduler/policy", "tasks"):
        body = _tree(ROOT / package / "__init__.py").body
        kinds: list[Callable[..., object]] = [type(node) for node in body]
        assert kinds in ([ast.Expr], []), f"importing {package} loads nothing"
