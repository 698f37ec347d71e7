"""``bin/test``: every check, on services of its own."""

import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from local import programs
from local.home import Home
from local.process import StartFailed
from local.services import embed, start_services
from local.supervisor import Log, Supervisor
from scheduler.settings import VARIABLES, new_secret

_SCRIPTS = ("bin/fairq", "bin/test", "bin/up")  # without a suffix they are not found by themselves
_IMPORT_LINTER = str(Path(sys.executable).with_name("lint-imports"))  # has no module to run
_CHECKS = (
    ("ruff", "check", ".", *_SCRIPTS),
    ("ruff", "format", "--check", ".", *_SCRIPTS),
    (_IMPORT_LINTER,),
    ("mypy",),
)
_MIGRATIONS = (
    ("alembic", "upgrade", "head"),
    ("alembic", "check"),
    ("alembic", "downgrade", "base"),
    ("alembic", "upgrade", "head"),
)
_BENCHMARKS = ("tests.bench", "--quick")  # do they still run?
_PROCESSES = "(system or browser)"
# Each part on services of its own; a file stays together for what it sets up.
_SIDE_BY_SIDE = ("-n", "logical", "--maxprocesses", "4", "--dist", "loadfile")
_TESTS = (
    ("pytest", "-m", f"not {_PROCESSES}", *_SIDE_BY_SIDE),
    ("pytest", "-m", f"{_PROCESSES} and not alone", *_SIDE_BY_SIDE),
    ("pytest", "-m", "alone"),
)
_INTERRUPTED = 130


def gate(paths: Sequence[str]) -> int:
    """Run every check, or only the tests of *paths*. Return the first exit code that is not 0."""
    try:
        with _services() as environment:
            return _first_failure(_commands(paths), environment)
    except StartFailed as problem:
        print(f"bin/test: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


def _commands(paths: Sequence[str]) -> list[Sequence[str]]:
    if paths:
        return [("pytest", *paths)]
    # The benchmarks go first so that the last lines are the summary of the tests.
    return [*_CHECKS, *_MIGRATIONS, _BENCHMARKS, *_TESTS]


@contextmanager
def _services() -> Iterator[dict[str, str]]:
    """Run a Postgres and a Valkey, and give the environment that names them."""
    with (
        tempfile.TemporaryDirectory(prefix="fairq-test-") as directory,
        Home(Path(directory) / "home") as home,
        (Path(directory) / "services.log").open("w") as log,
    ):
        supervisor = Supervisor(Log(log))
        services = embed(home, ["DATABASE_URL", "REDIS_URL"], throwaway=True)
        try:
            start_services(supervisor, services)
            yield _environment(home, {name: service.url for name, service in services.items()})
        finally:
            supervisor.stop()


def _environment(home: Home, urls: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which nothing the person has set for Fairq is left."""
    fairq = {variable.name for variable in VARIABLES}
    inherited = programs.inherited_environment().items()
    return {
        **{name: value for name, value in inherited if name not in fairq},
        **urls,
        "FAIRQ_HOME": str(home.path),
        "FAIRQ_SECRET_KEY": new_secret(),
        # Tests side by side must agree on the order of cases that come from sets.
        "PYTHONHASHSEED": str(secrets.randbelow(2**32)),
    }


def _first_failure(commands: Iterable[Sequence[str]], environment: Mapping[str, str]) -> int:
    for command in commands:
        print("==", *command, flush=True)
        code = _run(command, environment)
        if code != 0:
            return code
    return 0


def _run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    # Through Python, because the first line of a script goes stale when a checkout is moved.
    how = [] if command[0] == _IMPORT_LINTER else ["-m"]
    words = [sys.executable, *how, *command]
    return subprocess.run(words, cwd=programs.ROOT, env=environment, check=False).returncode
