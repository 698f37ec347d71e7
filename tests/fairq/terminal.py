"""A terminal in which ``fairq`` is typed; what runs is what the console script calls."""

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fairq.cli.main import main


@dataclass(frozen=True)
class Ran:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    def json(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Terminal:
    """Nobody is signed in at first."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], config: Path
    ) -> None:
        self._monkeypatch = monkeypatch
        self._capfd = capfd
        monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
        monkeypatch.delenv("FAIRQ_URL", raising=False)
        monkeypatch.delenv("FAIRQ_TOKEN", raising=False)

    def __call__(self, *words: Any, stdin: str = "") -> Ran:
        """Type a command, and return what became of it."""
        self._monkeypatch.setattr(sys, "argv", ["fairq", *map(str, words)])
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        with pytest.raises(SystemExit) as ended:
            main()
        printed = self._capfd.readouterr()
        return Ran(int(ended.value.code or 0), printed.out, printed.err)
