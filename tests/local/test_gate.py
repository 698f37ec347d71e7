import pytest

from local import gate, programs


def test_checks_stop_at_the_first_failure(capfd: pytest.CaptureFixture[str]) -> None:
    commands = [("json.tool", "--help"), ("no_such_tool",), ("json.tool", "--version-of-the-third")]
    code = gate._first_failure(commands, programs.inherited_environment())
    output = capfd.readouterr()
    assert code == 1
    assert "usage" in output.out
    assert "No module named no_such_tool" in output.err
    assert "third" not in output.out + output.err


def test_a_path_runs_its_tests_alone_on_services_of_their_own(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRQ_PORT", "not a port")
    assert gate.gate(["tests/local/test_home.py"]) == 0
    output = capfd.readouterr().out
    assert [line for line in output.splitlines() if line.startswith("== ")] == [
        "== pytest tests/local/test_home.py"
    ]
    assert "passed" in output.splitlines()[-1]


def test_the_tests_come_last() -> None:
    """What a person sees at the end is their summary."""
    kinds = ["pytest" in command for command in gate._commands([])]
    assert kinds == sorted(kinds)
    assert kinds[-1]
