"""Every command, from its words to what is printed, against the server double."""

import json
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from rich.console import RenderableType

from fairq.cli import completion, terminal
from fairq.cli.bulk import Action
from local.programs import ROOT
from scheduler.states import BulkAction
from tests.fairq.conftest import TOKEN
from tests.fairq.double import NOON, Double, Events, Reply, Silence, event, job, refusal
from tests.fairq.terminal import Terminal

DONE = Reply(200, job("a", "completed", result={"n": 42}, elapsed_seconds=5))


# Submitting


def test_submit_prints_the_id(typed: Terminal, double: Double) -> None:
    double.on("POST", "/jobs", Reply(201, job("made")))

    ran = typed("submit", "simulate", "duration_seconds=5", "message=hi")

    assert (ran.code, ran.out, ran.err) == (0, "made\n", "")
    assert double.bodies("POST", "/jobs") == [
        {"type": "simulate", "payload": {"duration_seconds": 5, "message": "hi"}}
    ]


def test_submit_says_everything_a_submission_can(typed: Terminal, double: Double) -> None:
    double.on("POST", "/jobs", Reply(201, job("a")))

    typed(
        *("submit", "simulate", "--payload", '{"n": 1}', "n=2", "--job-id", "a", "--owner", "bob"),
        *("--after", "b", "--after", "c:failed", "--priority", "3", "--tag", "x", "--tag", "y"),
        *("--cpu", "1.5", "--memory", "64", "--timeout", "5m", "--max-attempts", "1"),
        *("--run-at", "2026-03-01T12:00Z", "--start-by", "2026-03-01T13:00Z"),
        *("--executor", "pull", "--callback-url", "https://example.org/", "--description", "d"),
    )

    (body,) = double.bodies("POST", "/jobs")
    assert body.pop("run_at").startswith("2026-03-01T")
    assert body.pop("start_by").startswith("2026-03-01T")
    assert body == {
        "type": "simulate",
        "payload": {"n": 2},
        "job_id": "a",
        "owner": "bob",
        "depends_on": [{"job_id": "b", "when": "completed"}, {"job_id": "c", "when": "failed"}],
        "priority": 3,
        "tags": ["x", "y"],
        "resource_requirements": {"cpu_units": 1.5, "memory_mb": 64},
        "timeout_seconds": 300,
        "retry_config": {"max_attempts": 1},
        "executor": "pull",
        "callback_url": "https://example.org/",
        "description": "d",
    }


@pytest.mark.parametrize("words", [("-",), ("--payload", "-"), ("-", "m=2")])
def test_a_payload_can_be_piped_in(typed: Terminal, double: Double, words: tuple[str, ...]) -> None:
    double.on("POST", "/jobs", Reply(201, job("a")))

    typed("submit", "simulate", "--delay", "1m", *words, stdin='{"n": 1}')

    (body,) = double.bodies("POST", "/jobs")
    assert body["payload"]["n"] == 1
    assert body["delay_seconds"] == 60


@pytest.mark.parametrize(
    "words",
    [
        ("submit",),
        ("submit", "simulate", "lonely"),
        ("submit", "simulate", "--payload", "[1]"),
        ("submit", "simulate", "--timeout", "soon"),
        ("submit", "simulate", "--no-such-option"),
        ("dead", "retry"),
        ("dead", "retry", "a", "--all"),
        ("dead", "discard", "a", "--type", "simulate"),
        ("dead", "retry", "a", "--payload", "5"),
        ("bulk", "cancel"),
        ("bulk", "delete", "--status", "ready"),
        ("schedules", "--json", "ls"),
        ("schedules", "create", "s", "simulate"),
        ("schedules", "create", "s", "simulate", "--cron", "* * * * *", "--every", "5m"),
        ("submit-file", "no/such/file"),
        ("no-such-command",),
    ],
)
def test_what_cannot_be_understood_is_sent_to_nobody(
    typed: Terminal, double: Double, words: tuple[str, ...]
) -> None:
    ran = typed(*words)

    assert ran.code == 2
    assert ran.out == ""
    assert "Usage" in ran.err
    assert not double.requests


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ({"status": "completed"}, 0, "a completed after 5.0 s"),
        ({"status": "failed", "error": {"type": "Odd", "message": "why"}}, 1, "Odd: why"),
        ({"status": "cancelled", "reason": "cancelled_by_user"}, 3, "cancelled by user"),
    ],
)
def test_waiting_tells_the_end_by_the_exit_code(
    typed: Terminal, double: Double, end: dict[str, Any], code: int, said: str
) -> None:
    double.on("POST", "/jobs", Reply(201, job("a")))
    running = Reply(202, job("a", "running", progress={"fraction": 0.5, "message": "half"}))
    double.on("GET", "/jobs/a/wait", running, Reply(200, job("a", elapsed_seconds=5) | end))

    ran = typed("submit", "simulate", "--wait")

    assert ran.code == code
    assert said in ran.err
    assert ran.out == ""


def test_a_result_is_all_that_is_on_stdout(typed: Terminal, double: Double) -> None:
    double.on("POST", "/jobs", Reply(201, job("a")))
    double.on("GET", "/jobs/a/wait", DONE)

    assert typed("submit", "simulate", "--wait").json() == [{"n": 42}]
    assert typed("submit", "simulate", "--wait", "--json").json()[0]["result"] == {"n": 42}


def test_a_file_is_submitted_and_waited_for(
    typed: Terminal, double: Double, tmp_path: Path
) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text("jobs: {one: {type: x, job_id: a}, two: {type: x, depends_on: [one]}}")
    double.on("POST", "/jobs/batch", Reply(201, {"jobs": [job("a"), job("b")]}))
    double.on("GET", "/jobs/a/wait", DONE)
    double.on("GET", "/jobs/b/wait", Reply(200, job("b", "cancelled")))

    assert typed("submit-file", file).out == "a\nb\n"
    waited = typed("submit-file", "-", "--wait", "--json", stdin=file.read_text())

    assert waited.code == 3
    assert [one["status"] for one in waited.json()] == ["completed", "cancelled"]
    for body in double.bodies("POST", "/jobs/batch"):
        assert [one.get("depends_on") for one in body["jobs"]] == [None, ["a"]]


def test_a_refused_file_names_its_jobs(typed: Terminal, double: Double) -> None:
    errors = [{"path": "jobs.0.payload", "message": "is odd"}]
    double.on("POST", "/jobs/batch", refusal("validation_failed", 422, errors=errors))

    ran = typed("submit-file", "-", stdin="jobs: {fetch: {type: x}}")

    assert ran.code == 5
    assert "jobs.fetch.payload: is odd" in ran.err


def test_a_cycle_in_a_file_is_wrong_use(typed: Terminal, double: Double) -> None:
    ran = typed("submit-file", "-", stdin="jobs: {a: {type: x, job_id: a, depends_on: [a]}}")

    assert ran.code == 2
    assert "wait for each other: a → a" in ran.err
    assert not double.requests


# Looking


def test_ls_shows_jobs_and_why_they_wait(typed: Terminal, double: Double) -> None:
    waiting = {"code": "turn", "message": "It is in line."}
    jobs = [
        job("a", "ready", waiting=waiting, position_in_queue=2, waited_seconds=90),
        job("b", "running", progress={"fraction": 0.5, "message": "half"}, elapsed_seconds=3),
        job("c", "failed", error={"type": "Odd", "message": "why"}),
    ]
    double.on("GET", "/jobs", Reply(200, {"jobs": jobs, "next_cursor": None}))

    ran = typed("ls", "--status", "pending,running", "--type", "x", "--tag", "t", "--search", "s")

    assert "number 2 in line: It is in line." in ran.out
    assert "50% half" in ran.out
    assert "Odd: why" in ran.out
    assert "1.5 min" in ran.out
    assert double.requests[0].query == {
        "status": ["pending,running"],
        "type": ["x"],
        "tag": ["t"],
        "q": ["s"],
    }


def test_ls_stops_at_its_limit(typed: Terminal, double: Double) -> None:
    page = {"jobs": [job(str(number)) for number in range(3)], "next_cursor": "more"}
    last = {"jobs": [job("x")], "next_cursor": None}
    double.on(
        "GET", "/jobs", Reply(200, page), Reply(200, page), Reply(200, page), Reply(200, last)
    )

    assert len(typed("ls", "--json", "--limit", "4").json()) == 4
    assert len(double.requests) == 2
    assert len(typed("ls", "--json", "--all", "--oldest").json()) == 4
    assert double.requests[-1].query == {"sort": ["oldest"], "cursor": ["more"]}


def test_what_jobs_say_does_not_drive_the_terminal(typed: Terminal, double: Double) -> None:
    odd = "\x1b[2Jgone [bold]loud[/bold] \x9b"
    failed = job("a", "failed", error={"type": "Odd", "message": odd})
    double.on("GET", "/jobs", Reply(200, {"jobs": [failed], "next_cursor": None}))
    told = {"logs": [{"at": NOON, "level": "info", "message": odd}], "next_cursor": None}
    double.on("GET", "/jobs/a/logs", Reply(200, told))

    for ran in (typed("ls"), typed("logs", "a")):
        assert "\x1b" not in ran.out
        assert "\x9b" not in ran.out
        assert "[bold]loud[/bold]" in ran.out


def test_show_tells_everything(typed: Terminal, double: Double) -> None:
    estimate = {"earliest": NOON, "latest": None, "method": "forecast"}
    told = job(
        "a",
        "ready",
        waiting={"code": "turn", "message": "It is in line.", "estimated_start": estimate},
        depends_on=["b", {"job_id": "c", "when": "failed"}],
        resource_requirements={"cpu_units": 2, "memory_mb": 64},
        payload={"n": 1},
        priority="high",
        priority_level=2,
    )
    tries = [{"attempt": 1, "outcome": "failed", "error": {"type": "Odd", "message": "why"}}]
    double.on("GET", "/jobs/a", Reply(200, told))
    double.on("GET", "/jobs/a/attempts", Reply(200, {"attempts": tries}))

    out = typed("show", "a").out

    for words in (
        *("It is in line.", "or later", "b, c (failed)", "2 CPU units, 64 MB"),
        *('{"n": 1}', "high (2)", "Odd: why"),
    ):
        assert words in out
    (shown,) = typed("show", "a", "--json").json()
    assert shown["attempts"][0]["outcome"] == "failed"


def test_logs_are_printed_and_followed(typed: Terminal, double: Double) -> None:
    line = {"at": NOON, "attempt": 1, "level": "info", "message": "one"}
    double.on("GET", "/jobs/a/logs", Reply(200, {"logs": [line], "next_cursor": None}))

    assert typed("logs", "a").out.endswith("1  info     one\n")

    end = event({"status": "completed"}, kind="end")
    double.on("GET", "/jobs/a/logs", Events((event(line, number=1, kind="log"), end)))
    assert [one["message"] for one in typed("logs", "-f", "a", "--json").json()] == ["one"]


# Steering


@pytest.mark.parametrize(("verb", "method"), [("cancel", "PATCH"), ("retry", "POST")])
def test_each_job_has_its_turn(typed: Terminal, double: Double, verb: str, method: str) -> None:
    double.on(method, f"/jobs/a/{verb}", Reply(200, job("a", "ready")))
    double.on(method, f"/jobs/c/{verb}", Reply(200, job("c", "ready")))

    ran = typed(verb, "a", "b", "c", "--owner", "ann")

    assert ran.code == 5
    assert ran.out == "a ready\nc ready\n"
    assert "fairq: b: " in ran.err
    assert {tuple(one.query["owner"]) for one in double.requests} == {("ann",)}
    assert [one["job_id"] for one in typed(verb, "a", "c", "--json").json()] == ["a", "c"]


def test_wait_gives_up_after_its_time(typed: Terminal, double: Double) -> None:
    double.on("GET", "/jobs/a/wait", Reply(202, job("a", "running")))
    double.on("GET", "/jobs/b/wait", DONE)

    assert typed("wait", "a", "b", "--timeout", "0").code == 4
    assert typed("wait", "a", "--timeout", "0").code == 4
    assert typed("wait", "b", "b").code == 0


# Dead letters


def test_dead_letters_are_listed(typed: Terminal, double: Double) -> None:
    error = {"type": "Odd", "message": "why"}
    letter = job("a", "failed", fingerprint="f1", error=error, finished_at=NOON)
    group = {"fingerprint": "f1", "type": "simulate", "count": 3, "error": error}
    double.on(
        "GET",
        "/dead-letters",
        Reply(200, {"jobs": [letter], "next_cursor": None}),
        Reply(200, {"groups": [group], "next_cursor": None}),
    )

    listed = typed("dead", "ls", "--alike", "f1")
    grouped = typed("dead", "ls", "--group", "--json")

    assert "Odd: why" in listed.out
    assert "f1" in listed.out
    assert grouped.json()[0]["count"] == 3
    assert [one.query for one in double.requests] == [{"fingerprint": ["f1"]}, {"group": ["1"]}]


def test_dead_letters_run_again_or_are_discarded(typed: Terminal, double: Double) -> None:
    double.on("POST", "/dead-letters/retry", Reply(200, {"retried": 2, "next_cursor": None}))
    double.on("POST", "/dead-letters/discard", Reply(200, {"discarded": 3, "next_cursor": None}))

    assert typed("dead", "retry", "a", "b", "--payload", '{"n": null}').out == "2 retried\n"
    assert typed("dead", "discard", "--all", "--json").json() == [{"discarded": 3, "skipped": 0}]
    assert double.bodies("POST", "/dead-letters/retry") == [
        {"job_ids": ["a", "b"], "payload": {"n": None}}
    ]
    assert double.bodies("POST", "/dead-letters/discard") == [{"filter": {}}]


def test_a_named_job_that_is_no_dead_letter_was_not_found(typed: Terminal, double: Double) -> None:
    told = {"retried": 1, "skipped": 1, "next_cursor": None}
    double.on("POST", "/dead-letters/retry", Reply(200, told))

    named, matching = typed("dead", "retry", "a", "b"), typed("dead", "retry", "--type", "x")

    assert (named.code, named.out) == (5, "1 retried, 1 skipped\n")
    assert matching.code == 0


# Many jobs at a time


def counted(**more: Any) -> dict[str, Any]:
    return {"action": "cancel", "dry_run": True, "count": 3, "not_found": 0, "job_id": None} | more


def test_many_jobs_are_dealt_with_once_that_is_confirmed(typed: Terminal, double: Double) -> None:
    asked, made = Reply(200, counted(more=True)), Reply(202, counted(job_id="job_1"))
    double.on("POST", "/jobs/bulk", asked, made)
    words = ("bulk", "cancel", "--status", "ready,blocked", "--tag", "x", "--search", "s")

    ran = typed(*words, "--priority", "high,7", stdin="y\n")

    assert (ran.code, ran.out) == (0, "job_1\n")
    assert "cancel at least 3 jobs?" in ran.err
    wanted = {"status": ["ready", "blocked"], "priority": ["high", "7"], "tag": ["x"], "q": "s"}
    assert double.bodies("POST", "/jobs/bulk") == [
        {"action": "cancel", "filter": wanted, "dry_run": True},
        {"action": "cancel", "filter": wanted, "dry_run": False},
    ]


@pytest.mark.parametrize(
    ("words", "stdin", "code"), [((), "n\n", 130), ((), "", 130), (("--dry-run", "--yes"), "", 0)]
)
def test_many_jobs_are_left_alone(
    typed: Terminal, double: Double, words: tuple[str, ...], stdin: str, code: int
) -> None:
    double.on("POST", "/jobs/bulk", Reply(200, counted()))

    ran = typed("bulk", "cancel", "--owner", "bob", *words, stdin=stdin)

    assert ran.code == code
    assert [body["dry_run"] for body in double.bodies("POST", "/jobs/bulk")] == [True]


def test_nothing_is_done_where_nothing_matches(typed: Terminal, double: Double) -> None:
    double.on("POST", "/jobs/bulk", Reply(200, counted(count=0)))

    assert typed("bulk", "retry", "--type", "x", "--yes").out == "0 jobs\n"
    assert typed("bulk", "retry", "--type", "x", "--yes", "--json").json()[0]["count"] == 0
    assert {body["dry_run"] for body in double.bodies("POST", "/jobs/bulk")} == {True}


def test_many_jobs_are_waited_for(typed: Terminal, double: Double) -> None:
    done = {"action": "tag", "done": 2, "skipped": {"no_longer_matching": 1}}
    double.on("POST", "/jobs/bulk", Reply(202, counted(job_id="a")))
    double.on("GET", "/jobs/a/wait", Reply(200, job("a", "completed", result=done)))

    changes = ("--add-tag", "x", "--add-tag", "y", "--remove-tag", "z")
    waited = typed("bulk", "tag", "--type", "x", *changes, "--yes", "--wait")
    raised = typed("bulk", "prioritise", "--type", "x", "--set-priority", "3", "--yes", "--json")

    assert waited.json() == [done]
    assert raised.json()[0]["job_id"] == "a"
    tagged, prioritised = double.bodies("POST", "/jobs/bulk")[1::2]
    assert (tagged["add_tags"], tagged["remove_tags"]) == (["x", "y"], ["z"])
    assert prioritised["priority"] == 3


def test_all_that_may_be_done_to_many_jobs_can_be_typed() -> None:
    assert set(Action) == set(BulkAction)


# Schedules


def test_schedules_are_made_and_steered(typed: Terminal, double: Double) -> None:
    nightly = {"name": "nightly", "in_words": "At 03:00", "timezone": "UTC", "next_runs": [NOON]}
    double.on("GET", "/schedules", Reply(200, {"schedules": [nightly], "next_cursor": None}))
    double.on("POST", "/schedules", Reply(201, nightly))
    double.on("GET", "/schedules/nightly", Reply(200, nightly))
    double.on("PATCH", "/schedules/nightly", Reply(200, nightly | {"paused": True}))
    double.on("POST", "/schedules/nightly/run", Reply(201, job("made")))
    double.on("DELETE", "/schedules/nightly", Reply(204))

    cron = ("--cron", "0 3 * * *", "--timezone", "UTC", "--overlap", "skip", "--tag", "x")
    typed("schedules", "create", "nightly", "simulate", "n=1", *cron)
    typed("schedules", "create", "nightly", "simulate", "--every", "5m", "--paused")
    typed("schedules", "pause", "nightly")
    typed("schedules", "resume", "nightly")

    assert "At 03:00" in typed("schedules", "ls").out
    assert "At 03:00" in typed("schedules").out
    assert typed("schedules", "--json").json()[0]["name"] == "nightly"
    assert "nightly" in typed("schedules", "show", "nightly").out
    assert typed("schedules", "run", "nightly").out == "made\n"
    assert typed("schedules", "rm", "nightly").err == "deleted nightly\n"
    assert typed("schedules", "rm", "nightly", "--json").json() == [{"deleted": "nightly"}]
    assert double.bodies("POST", "/schedules") == [
        {
            "name": "nightly",
            "template": {"type": "simulate", "payload": {"n": 1}, "tags": ["x"]},
            "cron": "0 3 * * *",
            "timezone": "UTC",
            "overlap": "skip",
        },
        {
            "name": "nightly",
            "template": {"type": "simulate"},
            "every_seconds": 300,
            "paused": True,
        },
    ]
    assert double.bodies("PATCH", "/schedules/nightly") == [{"paused": True}, {"paused": False}]


# The service

OFFER = {"cpu_units": 8, "memory_mb": 1024, "slots": 4}
STATS = {
    "at": NOON,
    "of": "all",
    "jobs": {"running": 2, "blocked": 3},
    "classes": {"critical": 0, "normal": 7},
    "wait_seconds": {"p50": 1.5, "p95": 70, "p99": None},
    "capacity": OFFER,
    "reserved": {"cpu_units": 6, "memory_mb": 256, "slots": 2},
    "workers": 1,
}
ACTIVE = [
    job(
        "a",
        "running",
        owner="ann",
        started_at=NOON,
        resource_requirements={"cpu_units": 2, "memory_mb": 512},
    ),
    job("b", "running", owner="bob", resource_requirements={"cpu_units": 4, "memory_mb": 64}),
    job("c", "queued", owner="bob", resource_requirements={"cpu_units": 2, "memory_mb": 64}),
]


@pytest.fixture
def service(double: Double) -> None:
    double.on("GET", "/me", Reply(200, {"username": "ann", "role": "operator"}))
    double.on("GET", "/stats", Reply(200, STATS))
    double.on("GET", "/jobs", Reply(200, {"jobs": ACTIVE, "next_cursor": None}))
    kind = {"name": "simulate", "description": "Does.", "payload_schema": {"properties": {"n": {}}}}
    double.on("GET", "/types", Reply(200, {"types": [kind]}))
    worker = {"name": "w1", "state": "active", "alive": True, "running": [{"job_id": "a"}]}
    gone = {"name": "w2", "state": "active", "alive": False}
    pulling = {"name": "p1", "asked_by": "bob", "asked_at": NOON, "running": []}
    workers = {"workers": [worker, gone], "pull_workers": [pulling], "capacity": OFFER}
    double.on("GET", "/workers", Reply(200, workers))


@pytest.mark.usefixtures("service")
def test_figures_types_and_workers_are_shown(typed: Terminal) -> None:
    stats, types, workers = (typed(word).out for word in ("stats", "types", "workers"))

    assert "p50 1.5 s, p95 1.2 min" in stats
    assert "6 of 8" in stats
    assert "7 normal" in stats
    assert "simulate" in types
    assert "w1" in workers
    assert "gone" in workers
    assert typed("stats", "--json").json()[0]["of"] == "all"
    assert [one["name"] for one in typed("types", "--json").json()] == ["simulate"]
    assert re.search(r"^w1 +celery", workers, re.MULTILINE)
    assert re.search(r"^p1 +pull +asked 2026", workers, re.MULTILINE)
    assert [one["name"] for one in typed("workers", "--json").json()] == ["w1", "w2", "p1"]


@pytest.mark.usefixtures("service")
def test_top_tells_shares_and_what_runs(typed: Terminal, double: Double) -> None:
    screen = typed("top").out
    (picture,) = typed("top", "--json").json()

    assert picture["shares"] == {"bob": 0.75, "ann": 0.5}
    assert list(picture["shares"]) == ["bob", "ann"]
    assert screen.index("bob") < screen.index("ann")
    assert "75%" in screen
    assert "everybody" in screen
    assert double.asked("GET", "/jobs")[0].query["status"] == ["active"]


def test_watching_outlives_a_server_that_goes_away(
    typed: Terminal, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []

    def look_on(draw: Any, _every: float) -> None:
        frame: RenderableType = ""
        for _ in range(3):
            frame, note = terminal._drawn(draw, frame)
            drawn.append(f"{getattr(frame, 'row_count', '')} {note}".strip())

    monkeypatch.setattr(terminal, "watch", look_on)
    monkeypatch.setattr(terminal, "_PATIENCE_SECONDS", 0)
    page = Reply(200, {"jobs": [job("a")], "next_cursor": None})
    double.on("GET", "/jobs", page, Silence(), page)

    typed("ls", "--watch")

    assert drawn[0] == drawn[2] == "1"
    assert drawn[1].startswith("1 waiting for the server")


def test_what_is_watched_is_printed_for_programs_look_by_look(
    typed: Terminal, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter(range(3))

    def pause(_seconds: float) -> None:
        if next(looks) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(terminal, "pause", pause)
    monkeypatch.setattr(terminal, "_PATIENCE_SECONDS", 0)
    page = Reply(200, {"jobs": [job("a"), job("b")], "next_cursor": None})
    double.on("GET", "/jobs", page, Silence(), page)

    ran = typed("ls", "--watch", "--json")

    assert ran.code == 130
    assert [[one["job_id"] for one in look] for look in ran.json()] == [["a", "b"]] * 2
    assert ran.err.startswith("waiting for the server")


# Signing in


def test_login_makes_a_token_and_tells_nobody(
    typed: Terminal, double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAIRQ_URL")
    monkeypatch.delenv("FAIRQ_TOKEN")
    double.on("POST", "/tokens", Reply(201, {"token": "fq_new", "id": 1}))
    double.on("GET", "/me", Reply(200, {"username": "ann", "role": "user"}))
    double.on("GET", "/jobs", Reply(200, {"jobs": [], "next_cursor": None}))

    ran = typed("login", double.url, "--username", "ann", stdin="pass word\n")
    typed("ls")

    assert ran.code == 0
    assert "as ann" in ran.err
    assert "fq_new" not in ran.out + ran.err
    (asked,) = double.asked("POST", "/tokens")
    assert asked.headers["authorization"].startswith("Basic ")
    assert asked.body["scopes"] == ["read", "submit"]
    (later,) = double.asked("GET", "/jobs")
    assert later.headers["authorization"] == "Bearer fq_new"

    assert typed("logout").code == 0
    assert "not signed in" in typed("ls").err
    assert "nobody was signed in" in typed("logout").err


def test_a_token_can_be_brought_along(typed: Terminal, double: Double) -> None:
    double.on("GET", "/me", Reply(200, {"username": "ann", "role": "user"}))

    assert typed("login", double.url, "--token", "-", stdin="fq_mine\n").code == 0
    assert double.requests[0].headers["authorization"] == "Bearer fq_mine"


def test_signing_in_and_out_is_told_to_programs(typed: Terminal, double: Double) -> None:
    double.on("GET", "/me", Reply(200, {"username": "ann", "role": "user"}))

    (told,) = typed("login", double.url, "--token", "fq_mine", "--json").json()

    assert (told["url"], told["username"]) == (double.url, "ann")
    assert typed("logout", "--json").json() == [{"signed_out": True}]
    assert typed("logout", "--json").json() == [{"signed_out": False}]


def test_nothing_is_kept_of_a_token_that_is_refused(
    typed: Terminal, double: Double, tmp_path: Path
) -> None:
    double.on("GET", "/me", refusal("unauthenticated", 401))

    ran = typed("login", double.url, "--token", "wrong")

    assert ran.code == 5
    assert "wrong" not in ran.out + ran.err
    assert not list((tmp_path / "config").rglob("*.json"))


def test_a_wrong_password_is_said_so(typed: Terminal, double: Double) -> None:
    double.on("POST", "/tokens", refusal("unauthenticated", 401))

    ran = typed("login", double.url, "--username", "ann", stdin="wrong\n")

    assert ran.code == 5
    assert ran.err == "fairq: refused: unauthenticated\n"


def test_an_address_without_a_scheme_is_wrong_use(typed: Terminal) -> None:
    ran = typed("login", "fairq.example.org", "--token", "x")

    assert ran.code == 2
    assert "is no address of a server" in ran.err


# Errors


def test_an_error_is_one_line_on_stderr(typed: Terminal, double: Double) -> None:
    ran = typed("show", "nobody", "--json")

    assert (ran.code, ran.out) == (5, "")
    assert ran.err.count("\n") == 1
    assert "`fairq ls`" in ran.err


def test_a_server_that_is_away_has_its_own_exit_code(typed: Terminal, double: Double) -> None:
    double.on("GET", "/stats", Reply(503, {"code": "unavailable", "detail": "away"}))

    assert typed("stats").code == 6


def test_who_does_not_answer_a_question_breaks_off(signed_out: Terminal) -> None:
    ran = signed_out("login")

    assert ran.code == 130
    assert "Traceback" not in ran.err


def test_a_login_that_may_not_be_read_is_said_so(signed_out: Terminal, tmp_path: Path) -> None:
    (tmp_path / "config/fairq/login.json").mkdir(parents=True)

    ran = signed_out("ls")

    assert (ran.code, ran.out) == (7, "")
    assert re.fullmatch(r"fairq: .*login\.json.*\n", ran.err)


@pytest.mark.usefixtures("service")
def test_a_mistake_in_the_program_is_no_failed_job(
    typed: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("fairq.cli.tables.stats_view")

    ran = typed("stats")

    assert ran.code == 7
    assert re.fullmatch(r"fairq: AttributeError: .*\n", ran.err)


def test_version_is_printed(typed: Terminal) -> None:
    assert typed("--version").out.strip()


# Completion


@pytest.mark.usefixtures("typed", "service")
def test_types_jobs_and_schedules_are_completed(double: Double) -> None:
    schedules = {"schedules": [{"name": "nightly", "cron": "0 3 * * *"}], "next_cursor": None}
    double.on("GET", "/schedules", Reply(200, schedules))

    assert completion.types("sim") == [("simulate", "Does.")]
    assert completion.job_ids("b") == [("b", "simulate, running")]
    assert completion.schedules("") == [("nightly", "0 3 * * *")]
    assert completion.types("x") == []


@pytest.mark.usefixtures("typed")
def test_nothing_is_completed_without_an_answer(double: Double) -> None:
    double.on("GET", "/types", Silence())

    assert completion.types("") == []
    assert len(double.requests) == 1


@pytest.mark.usefixtures("signed_out")
def test_nothing_is_completed_for_nobody() -> None:
    assert completion.types("") == []


# The programs themselves


def environment(double: Double, home: Path, **more: str) -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
        "FAIRQ_URL": double.url,
        "FAIRQ_TOKEN": TOKEN,
        **more,
    }


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(
    "program", [(sys.executable, ROOT / "bin" / "fairq"), (sys.executable, "-m", "fairq")]
)
def test_the_program_runs_from_a_checkout(
    double: Double, tmp_path: Path, program: tuple[str, ...]
) -> None:
    ran = subprocess.run(
        [*program, "types", "--json"],
        cwd=ROOT if "-m" in program else tmp_path,
        env=environment(double, tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout)["name"] == "simulate"


@pytest.mark.usefixtures("service")
def test_the_shell_completes_job_types(double: Double, tmp_path: Path) -> None:
    asked = environment(
        double,
        tmp_path,
        _FAIRQ_COMPLETE="complete_bash",
        COMP_WORDS="fairq submit sim",
        COMP_CWORD="2",
    )

    ran = subprocess.run(
        [sys.executable, ROOT / "bin" / "fairq"],
        env=asked,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.stdout.split() == ["simulate"]


@pytest.mark.usefixtures("service")
def test_top_redraws_on_a_screen_until_it_is_interrupted(double: Double, tmp_path: Path) -> None:
    reader, screen = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, ROOT / "bin" / "fairq", "top", "--every", "0.1"],
        env=environment(double, tmp_path, TERM="xterm", COLUMNS="100", LINES="50"),
        stdin=screen,
        stdout=screen,
        stderr=screen,
    )
    os.close(screen)
    seen = b""
    while len(double.asked("GET", "/stats")) < 3:
        seen += os.read(reader, 65_536)
    process.send_signal(2)
    kill = threading.Timer(20, process.kill)
    kill.start()
    seen += b"".join(_rest(reader))
    kill.cancel()
    os.close(reader)

    assert process.wait() == 130
    assert b"everybody" in seen


def _rest(terminal: int) -> Iterator[bytes]:
    """Read what comes until nobody holds the other side; a program that is not read cannot end."""
    with suppress(OSError):  # EIO: that is how a terminal ends
        while True:
            yield os.read(terminal, 65_536)


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("words", [["types"], ["types", "--json"]])
def test_who_is_not_read_any_more_ends_quietly(
    double: Double, tmp_path: Path, words: list[str]
) -> None:
    reader, pipe = os.pipe()
    os.close(reader)

    ran = subprocess.run(
        [sys.executable, ROOT / "bin" / "fairq", *words],
        env=environment(double, tmp_path),
        stdout=pipe,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(pipe)

    assert (ran.returncode, ran.stderr) == (7, b"")
