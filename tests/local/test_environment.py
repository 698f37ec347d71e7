"""The step before anything is installed."""

import subprocess
import sys
from pathlib import Path

import pytest

from local import environment
from local.programs import ROOT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "requirements.txt").write_text("# nothing\n")
    return tmp_path


def stamp(checkout: Path) -> Path:
    return checkout / ".venv" / "fairq-requirements.sha256"


def test_an_environment_is_made_and_then_left_alone(
    checkout: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    python = environment.ensure(checkout)
    assert "installing" in capfd.readouterr().out
    answer = subprocess.run(
        [python, "-c", "import sys; print(sys.prefix)"], check=True, capture_output=True, text=True
    )
    assert answer.stdout.strip() == str(checkout / ".venv")
    assert environment.ensure(checkout) == python
    assert capfd.readouterr().out == ""


class Commands:
    """Stands in for pip and venv, and remembers what they were asked."""

    def __init__(self, *, fail: bool = False) -> None:
        self.asked: list[list[str]] = []
        self._fail = fail

    def __call__(self, command: list[str], **_: object) -> "subprocess.CompletedProcess[str]":
        self.asked.append(command)
        if "venv" in command:
            python = Path(command[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.touch()
        return subprocess.CompletedProcess(command, returncode=1 if self._fail else 0)


def test_a_changed_list_is_installed_into_the_environment_there_is(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = Commands()
    monkeypatch.setattr(environment.subprocess, "run", commands)
    environment.ensure(checkout)
    assert [("venv" in c, "install" in c) for c in commands.asked] == [(True, False), (False, True)]
    commands.asked.clear()
    (checkout / "requirements.txt").write_text("# something else\n")
    environment.ensure(checkout)
    assert [("venv" in c, "install" in c) for c in commands.asked] == [(False, True)]
    environment.ensure(checkout)
    assert len(commands.asked) == 1


def test_what_could_not_be_installed_is_tried_again(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment.subprocess, "run", Commands(fail=True))
    with pytest.raises(SystemExit, match="python3-venv"):
        environment.ensure(checkout)
    assert not stamp(checkout).exists()
    with pytest.raises(SystemExit, match="packages could not be installed"):
        environment.ensure(checkout)
    assert not stamp(checkout).exists()


@pytest.mark.parametrize("script", ["up", "test"])
def test_an_old_python_is_told_so(script: str) -> None:
    code = (
        "import sys; sys.version_info = (3, 10, 4); sys.version = '3.10.4 (main)';"
        f"exec(open('bin/{script}').read())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 1
    assert result.stderr == f"bin/{script} needs Python 3.11 or newer; this is Python 3.10.4\n"


@pytest.mark.parametrize("script", ["bin/up", "bin/test", ".ci/run"])
def test_a_script_can_be_executed(script: str) -> None:
    assert (ROOT / script).stat().st_mode & 0o111 == 0o111


def test_the_step_needs_nothing_installed() -> None:
    """It runs in an interpreter that sees the standard library and the checkout only."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import local.environment; print('fine')"
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], check=False, capture_output=True, text=True
    )
    assert result.stdout == "fine\n", result.stderr
