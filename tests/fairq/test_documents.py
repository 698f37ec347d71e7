"""What the documents tell about the client, run as it is written."""

import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import typer

import fairq
from fairq import Client, FairqError, Refused, errors
from fairq.cli import workflow_file
from fairq.cli.ending import Exit
from fairq.cli.main import app
from fairq.testing import JobRun
from local.programs import ROOT
from tests.fairq.conftest import TOKEN
from tests.fairq.double import Asked, Double, Events, Reply, event, job, leased, refusal
from tests.readme import TEXT, snippets
from tests.test_documents import rows

CLIENT, COMMANDS, KIT = (
    (ROOT / "docs" / name).read_text() for name in ("client.md", "command-line.md", "test-kit.md")
)
OVER = refusal("forbidden", 403)
"""Ends what would go on for ever."""


def words_of(cells: list[str]) -> set[str]:
    return set(re.findall(r"`([\w-]+)`", cells[0]))


@pytest.fixture
def paste(double: Double, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the one Python snippet of a text with *word* in it."""
    monkeypatch.setenv("FAIRQ_URL", double.url)
    monkeypatch.setenv("FAIRQ_TOKEN", TOKEN)

    def run(text: str, word: str) -> None:
        (block,) = [one for one in snippets("python", text) if word in one]
        exec(compile(block, word, "exec"), {"__name__": "docs"})  # noqa: S102 - our own words

    return run


# From Python


@pytest.mark.parametrize("text", [TEXT, CLIENT], ids=["README", "client"])
def test_the_first_program_prints_the_result(
    paste: Any, double: Double, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    double.on("POST", "/jobs", Reply(201, job("a")))
    double.on("GET", "/jobs/a/wait", Reply(200, job("a", "completed", result=42)))

    paste(text, "client.wait(job)")

    assert capsys.readouterr().out == "42\n"


def test_the_workflow_is_submitted_as_drawn(paste: Any, double: Double) -> None:
    def take(asked: Asked) -> Reply:
        return Reply(201, {"jobs": [job(one["job_id"]) for one in asked.body["jobs"]]})

    double.on("POST", "/jobs/batch", take)

    paste(CLIENT, "client.workflow()")

    (body,) = double.bodies("POST", "/jobs/batch")
    names = {one["job_id"]: one["type"] for one in body["jobs"]}
    assert {
        (names[parent if isinstance(parent, str) else parent["job_id"]], one["type"])
        for one in body["jobs"]
        for parent in one.get("depends_on", [])
    } == {
        ("data_fetch", "data_processing"),
        ("data_fetch", "data_export"),
        ("data_fetch", "send_email"),
        ("data_processing", "report_generation"),
        ("data_export", "report_generation"),
    }


def test_changes_are_followed(
    paste: Any, double: Double, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"job_id": "a", "seq": 7, "status": "running"}
    gap, change = event({"seq": 6}, kind="reload"), event(told, kind="job")
    double.on("GET", "/jobs/stream", Events((gap, change)), OVER)

    with pytest.raises(Refused):
        paste(CLIENT, "client.stream()")

    assert capsys.readouterr().out == "missed some: look at the jobs again\n7 a running\n"


def test_the_worker_works(paste: Any, double: Double) -> None:
    double.on("POST", "/jobs/next", Reply(200, leased("a", payload={"width": 9})), OVER)
    double.on("POST", "/jobs/a/heartbeat", Reply(200, {}))
    double.on("POST", "/jobs/a/complete", Reply(200, job("a", "completed")))

    with pytest.raises(Refused):
        paste(CLIENT, "client.worker(")

    (report,) = double.bodies("POST", "/jobs/a/complete")
    assert report["result"] == {"width": 9}


def test_every_method_is_listed() -> None:
    listed = set().union(*map(words_of, rows(CLIENT, "`estimated_seconds`, `run_at`,")))
    methods = {name for name in vars(Client) if not name.startswith("_")} - {"close"}

    assert listed == methods


def test_every_error_is_listed() -> None:
    listed = set().union(*map(words_of, rows(CLIENT, "such as a cancel, is tried once.")))
    kinds = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, FairqError)
    }

    assert listed == kinds - {"FairqError"}
    assert kinds <= set(fairq.__all__)


# From the command line


def test_every_command_is_listed() -> None:
    listed = set().union(*map(words_of, rows(COMMANDS, "<!-- commands:")))

    assert listed == set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("group", ["dead", "schedules"])
def test_every_command_of_a_group_is_listed(group: str) -> None:
    (row,) = [cells for cells in rows(COMMANDS, "<!-- commands:") if cells[0] == f"`{group}`"]
    commands = typer.main.get_command(app).commands[group].commands  # type: ignore[attr-defined]

    assert set(re.findall(r"`(\w+)`", row[1])) == set(commands)


def test_every_exit_code_is_listed() -> None:
    listed = {int(cells[0]) for cells in rows(COMMANDS, "<!-- exit codes:")}

    assert listed == set(map(int, Exit))


@pytest.mark.parametrize("text", [TEXT, COMMANDS], ids=["README", "command-line"])
def test_commands_are_spelt_as_they_are(text: str) -> None:
    inline = re.findall(r"`(?:bin/)?(fairq [^`]+)`", text)
    pasted = re.findall(r"^(?:bin/)?(fairq .+)$", "\n".join(snippets("sh", text)), re.MULTILINE)
    group: Any = typer.main.get_command(app)

    assert inline
    assert pasted
    for line in [*inline, *pasted]:
        words = shlex.split(line, comments=True)[1:]
        if words[0].startswith("--"):
            continue  # about the program itself
        with group.make_context("fairq", [words[0], "x"], resilient_parsing=True) as context:
            name, command, rest = group.resolve_command(context, words)
            if name != "submit-file":  # the file it names is not there
                command.make_context(name, rest, parent=context)


def test_the_workflow_in_a_file_is_one() -> None:
    (block,) = snippets("yaml", COMMANDS)

    assert workflow_file.read(block).names == ["fetch", "means", "alarm"]
    module = textwrap.dedent(workflow_file.__doc__.partition("::\n")[2].partition("\nThe names")[0])
    assert workflow_file.read(module).names == ["fetch", "report"]


# The test kit


def test_tests_pass_as_they_are_written(tmp_path: Path) -> None:
    tests = tmp_path / "test_docs.py"
    tests.write_text("\n\n".join(snippets("python", KIT)))
    count = tests.read_text().count("def test_")
    command = [sys.executable, "-m", "pytest", "-p", "fairq.plugin", "-c", "/dev/null", "-q"]

    ran = subprocess.run(
        [*command, "--rootdir", str(tmp_path), str(tests)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert f"{count} passed" in ran.stdout, ran.stdout
    assert count == 4


def test_everything_a_run_tells_is_listed() -> None:
    listed = set().union(*map(words_of, rows(KIT, 'assert ("info", "hello") in run.logs')))

    assert listed == set(JobRun.__dataclass_fields__) - {"attempt"}
