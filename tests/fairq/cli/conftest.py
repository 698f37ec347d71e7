"""A terminal whose commands go to the server double."""

from pathlib import Path

import pytest

from fairq.cli import terminal
from tests.fairq.conftest import TOKEN
from tests.fairq.double import Double
from tests.fairq.terminal import Terminal


@pytest.fixture
def signed_out(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Terminal:
    return Terminal(monkeypatch, capfd, tmp_path / "config")


@pytest.fixture
def typed(signed_out: Terminal, double: Double, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("FAIRQ_URL", double.url)
    monkeypatch.setenv("FAIRQ_TOKEN", TOKEN)
    monkeypatch.setattr(terminal, "_PATIENCE_SECONDS", 1.0)
    return signed_out
