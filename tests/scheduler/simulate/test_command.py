import json
from pathlib import Path

import pytest

from scheduler.__main__ import main
from scheduler.simulate.reading import built_in


@pytest.fixture
def story(tmp_path: Path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(
        "about: Two users\n"
        "hours: 0.01\n"
        "capacity: {cpu_units: 2}\n"
        "users:\n"
        "  - {name: ann, jobs: [{arrivals: {backlog: 30}, shapes: [{seconds: 2}]}]}\n"
        "  - {name: bob, jobs: [{arrivals: {backlog: 30}, shapes: [{seconds: 2}]}]}\n"
    )
    return str(path)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["simulate", *arguments]) == 0
    return capsys.readouterr().out


def row(text: str, name: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(name)]
    return line.removeprefix(name).split()


def test_the_built_in_scenarios_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert [line.split()[0] for line in said(capsys, "--list").splitlines()] == built_in()


def test_a_run_is_told_as_tables(capsys: pytest.CaptureFixture[str], story: str) -> None:
    text = said(capsys, story)

    assert text.startswith("small: Two users\n")
    assert row(text, "normal") == ["60", "28", "58", "58"]
    assert row(text, "ann")[:5] == ["50.0", "%", "50.0", "%", "30"]
    assert "100.0 % of the machine used" in text


def test_weights_can_be_changed(capsys: pytest.CaptureFixture[str], story: str) -> None:
    text = said(capsys, story, "--weights", "ann=3")

    assert row(text, "ann")[:4] == ["75.0", "%", "75.0", "%"]


def test_the_machine_can_be_changed(capsys: pytest.CaptureFixture[str], story: str) -> None:
    text = said(capsys, story, "--capacity", "cpu=4,processes=3")

    assert row(text, "normal") == ["60", "18", "38", "38"]


def test_alternatives_stand_beside_the_policy(
    capsys: pytest.CaptureFixture[str], story: str
) -> None:
    text = said(capsys, story, "--compare")

    policies = ["this policy", "first come first served", "strict class"]
    policies += ["class, then fair", "fair, then class"]
    assert all(row(text, policy) for policy in policies)


def test_results_are_written_as_json(
    capsys: pytest.CaptureFixture[str], story: str, tmp_path: Path
) -> None:
    said(capsys, story, "--json", str(tmp_path / "found.json"))

    found = json.loads((tmp_path / "found.json").read_text())
    assert found["scenario"] == "small"
    assert found["policies"]["this policy"]["watched"]["all"]["jobs"] == 60


def test_results_are_drawn_the_same_each_time(
    capsys: pytest.CaptureFixture[str], story: str, tmp_path: Path
) -> None:
    drawn = []
    for name in ("one", "two"):
        said(capsys, story, "--charts", str(tmp_path / name))
        drawn.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})

    assert set(drawn[0]) == {"small-waits.svg", "small-shares.svg"}
    assert drawn[0] == drawn[1]


def test_estimates_are_scored_when_asked_for(
    capsys: pytest.CaptureFixture[str], story: str
) -> None:
    assert "estimated starts lay in their range" in said(capsys, story, "--estimates")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nonsense"], "nonsense is neither a file nor one of"),
        (["STORY", "--weights", "eve=2"], "weights: eve submits nothing here"),
    ],
)
def test_what_cannot_be_played_is_said(
    capsys: pytest.CaptureFixture[str], story: str, arguments: list[str], problem: str
) -> None:
    given = [story if each == "STORY" else each for each in arguments]

    assert main(["simulate", *given]) == 2
    assert problem in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["everyday", "--list"],
        ["everyday", "--weights", "alice"],
        ["everyday", "--weights", "alice=-1"],
        ["everyday", "--capacity", "gpu=1"],
        ["--from-history", "yesterday"],
    ],
)
def test_options_that_make_no_sense_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["simulate", *arguments])
