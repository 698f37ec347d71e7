"""Makes and renews ``.venv``. Standard library only: it runs before anything is installed."""

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_REQUIREMENTS = "requirements.txt"
_STAMP = "fairq-requirements.sha256"


def become(root: Path, module: str, arguments: list[str]) -> None:
    """Replace this process by *module*, run with everything *root* requires installed."""
    python = ensure(root)
    given = os.environ.get("FAIRQ_HOME")
    if given:
        # Said from where the person stands, which is about to change.
        os.environ["FAIRQ_HOME"] = str(Path(given).absolute())
    os.chdir(root)
    os.execv(python, [str(python), "-m", module, *arguments])  # noqa: S606 - as promised


def ensure(root: Path) -> Path:
    """Return the Python of *root*'s environment, made or renewed if requirements changed."""
    environment = root / ".venv"
    with (root / _REQUIREMENTS).open() as lock:
        # Whoever comes second waits here and then finds the work done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_fresh(root, environment):
            _renew(root, environment)
    return _python(environment)


def _is_fresh(root: Path, environment: Path) -> bool:
    stamp = environment / _STAMP
    if not (stamp.exists() and _python(environment).exists()):
        return False
    return stamp.read_text() == _wanted(root)


def _wanted(root: Path) -> str:
    return hashlib.sha256((root / _REQUIREMENTS).read_bytes()).hexdigest()


def _renew(root: Path, environment: Path) -> None:
    wanted = _wanted(root)
    print(
        "fairq: installing what requirements.txt names; the first time takes a minute", flush=True
    )
    if not _python(environment).exists():
        _make(environment)
    pip = [str(_python(environment)), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    _run(
        [*pip, "install", "--no-input", "--requirement", str(root / _REQUIREMENTS)],
        otherwise="the packages could not be installed",
    )
    (environment / _STAMP).write_text(wanted)


def _make(environment: Path) -> None:
    _run(
        [sys.executable, "-m", "venv", "--clear", str(environment)],
        otherwise="no environment could be made (Debian and Ubuntu: apt install python3-venv)",
    )


def _run(command: list[str], *, otherwise: str) -> None:
    if subprocess.run(command, check=False).returncode != 0:
        raise SystemExit(f"fairq: {otherwise}; the lines above say why")


def _python(environment: Path) -> Path:
    return environment / "bin" / "python"
