"""A terminal in which ``fairq`` is typed."""

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fairq.cli import terminal
from fairq.cli.main import main
from tests.fairq.conftest import TOKEN
from tests.fairq.double import Double


@dataclass(frozen=True)
class Ran:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str


Type = Callable[..., Ran]


@pytest.fixture
def signed_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody is signed in."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("FAIRQ_URL", raising=False)
    monkeypatch.delenv("FAIRQ_TOKEN", raising=False)


@pytest.fixture
def signed_in(signed_out: None, double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRQ_URL", double.url)
    monkeypatch.setenv("FAIRQ_TOKEN", TOKEN)
    monkeypatch.setattr(terminal, "_PATIENCE_SECONDS", 1.0)


@pytest.fixture
def typed(
    signed_in: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Type:
    """Type a command as the console script gets it."""

    def run(*words: Any, stdin: str = "") -> Ran:
        monkeypatch.setattr(sys, "argv", ["fairq", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capfd.readouterr()
        return Ran(int(ended.value.code or 0), printed.out, printed.err)

    return run
