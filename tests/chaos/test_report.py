"""The report says how it was made, what was measured, and how to see a failure again."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.audit import Breach
from tests.chaos.histories import struck
from tests.chaos.recovery import Recovery
from tests.chaos.report import BEGIN, END, Plan, Run, figures, is_well, render, write
from tests.chaos.schedule import Kind

PLAN = Plan(seed=7, seconds=180.0, rate=20.0)


def recovery(kind: Kind, *seconds: float, is_alone: bool = True) -> Recovery:
    return Recovery(struck(kind, 1.0), seconds, is_alone)


def run(*recoveries: Recovery, breaches: Sequence[Breach] = ()) -> Run:
    return Run(
        plan=PLAN,
        breaches=breaches,
        recoveries=recoveries,
        missed=[Kind.CHILD_KILLED],
        counts={"jobs": 3600, "attempts": 3700, "lost": 9, "repeated": 8, "failed": 70},
        answers={"201": 3000, "503": 5},
    )


def row(text: str, first: str) -> list[str]:
    (found,) = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in found.strip("|").split("|")][1:]


def test_figures_are_those_of_the_values() -> None:
    made = figures([float(n) for n in range(1, 101)])

    assert (made.count, made.p50, made.p95, made.most) == (100, 50.0, 95.0, 100.0)
    assert figures([]).p50 is None


def test_it_says_how_it_was_made() -> None:
    text = render([run(), run()], command="python -m tests.chaos --seed 7")

    assert "python -m tests.chaos --seed 7" in text
    assert "3 minutes at 20 jobs/s with the seeds 7, 7" in text
    assert "7,200 jobs, 7,400 attempts: 18 were lost, 16 repeated" in text
    assert "6,000 201, 10 503" in text
    assert "2 x pool process killed" in text


def test_a_fault_has_figures_of_its_own_alone_and_in_the_storm() -> None:
    made = run(
        recovery(Kind.POSTGRES_CUT, 1.0),
        recovery(Kind.POSTGRES_CUT, 3.0),
        recovery(Kind.POSTGRES_CUT, 9.0, is_alone=False),
    )

    cells = row(render([made], command=""), Kind.POSTGRES_CUT)

    assert cells == ["3", "2", "1.0", "3.0", "3.0", "9.0", "9.0", "9.0"]


@pytest.mark.parametrize(("seconds", "kept"), [(1.9, "yes"), (2.1, "**no**")])
def test_a_promise_is_held_to_what_came_alone(seconds: float, kept: str) -> None:
    made = run(
        recovery(Kind.CHILD_KILLED, seconds), recovery(Kind.CHILD_KILLED, 60.0, is_alone=False)
    )

    assert row(render([made], command=""), "the job of a killed pool process runs elsewhere") == [
        "2", "1", *[f"{seconds}"] * 3, kept
    ]  # fmt: skip
    assert is_well([made]) is (kept == "yes")


def test_a_promise_allows_an_exception() -> None:
    jobs = [30.0] * 99

    assert is_well([run(recovery(Kind.WORKER_KILLED, *jobs, 50.0))])
    assert not is_well([run(recovery(Kind.WORKER_KILLED, *jobs[:9], 50.0))])


def test_a_failure_comes_with_the_command_that_shows_it_again() -> None:
    made = run(breaches=[Breach("nothing is left over", "1 active")])

    text = render([made, run()], command="")

    assert row(text, "nothing is left over") == ["1"]
    assert "seed 7, nothing is left over: 1 active" in text
    assert "`python -m tests.chaos --seed 7 --minutes 3 --rate 20`" in text
    assert not is_well([made, run()])
    assert "Broken" not in render([run()], command="")


def test_what_was_left_out_is_said() -> None:
    assert "- The disk stayed." in render([run()], command="", left_out=["The disk stayed."])


def test_the_report_takes_its_place_in_a_document(tmp_path: Path) -> None:
    document = tmp_path / "results.md"
    document.write_text(f"before\n\n{BEGIN}\n\nold\n\n{END}\n\nafter\n")

    write(document, "new\n")
    write(document, "newest\n")

    assert document.read_text() == f"before\n\n{BEGIN}\n\nnewest\n\n{END}\n\nafter\n"


def test_a_document_without_a_place_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "results.md"
    document.write_text("mine")

    with pytest.raises(ValueError, match="no place"):
        write(document, "new")
    assert document.read_text() == "mine"


def test_a_report_of_its_own_is_a_file(tmp_path: Path) -> None:
    write(tmp_path / "report.md", "text\n")

    assert (tmp_path / "report.md").read_text() == "text\n"


def test_a_plan_names_its_command() -> None:
    assert replace(PLAN, seconds=30.0).command == (
        "python -m tests.chaos --seed 7 --minutes 0.5 --rate 20"
    )
