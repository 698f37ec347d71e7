"""The clients and the command line against a running Fairq; one for all of these tests."""

import asyncio
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fairq import (
    AsyncClient,
    Client,
    CycleFound,
    Dependency,
    DoNotRetry,
    Job,
    NotFinished,
    Refused,
    Submission,
)
from tests.fairq.conftest import Driven
from tests.fairq.terminal import Terminal
from tests.services import ADMIN, Services, Stack, eventually

pytestmark = [pytest.mark.system, pytest.mark.slow]

SCOPES = ["read", "submit", "work"]


@pytest.fixture(scope="module")
def stack(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(services, tmp_path_factory.mktemp("stack")) as stack:
        stack.start("web", "scheduler")
        stack.start_worker()
        yield stack


@pytest.fixture(scope="module")
def token(stack: Stack) -> str:
    body = {"name": "tests", "scopes": SCOPES}
    made = httpx.post(f"{stack.url}/tokens", json=body, auth=ADMIN)
    return str(made.json()["token"])


@pytest.fixture(params=["plain", "asyncio"])
def client(request: pytest.FixtureRequest, stack: Stack, token: str) -> Iterator[Any]:
    if request.param == "plain":
        with Client(stack.url, token) as plain:
            yield plain
        return
    with asyncio.Runner() as runner:
        driven = Driven(runner, AsyncClient(stack.url, token))
        yield driven
        driven.close()


class Shell:
    """A terminal whose commands are expected to work."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def run(self, *words: str, stdin: str = "", code: int = 0) -> str:
        """Type a command, and return what it prints; fail unless it ends with *code*."""
        ran = self._terminal(*words, stdin=stdin)
        assert ran.code == code, ran
        return ran.out

    def json(self, *words: str) -> list[Any]:
        return self._terminal(*words, "--json").json()


@pytest.fixture
def signed_out(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Shell:
    return Shell(Terminal(monkeypatch, capfd, tmp_path))


@pytest.fixture
def shell(signed_out: Shell, stack: Stack) -> Shell:
    signed_out.run("login", stack.url, "--username", ADMIN[0], stdin=ADMIN[1] + "\n")
    return signed_out


def finished(client: Any, job: str | Job) -> Job:
    """Return a job once it is finished."""
    return eventually(lambda: found if (found := client.job(job)).is_finished else None)


# The clients


def test_a_job_goes_in_and_its_result_comes_out(client: Any) -> None:
    submitted = client.submit("simulate", {"result": {"n": 42}, "message": "hello"}, tags=["x"])

    done = finished(client, submitted)

    assert (done.status, done.result, done.tags) == ("completed", {"n": 42}, ["x"])
    assert [one.outcome for one in client.attempts(done)] == ["completed"]
    assert "hello" in [line.message for line in client.logs(done)]
    assert client.me().username == ADMIN[0]


def test_everything_that_is_answered_is_kept(client: Any, stack: Stack, token: str) -> None:
    job = finished(client, client.submit("simulate", {"fail_attempts": 1, "retryable": False}))
    raw = httpx.Client(base_url=stack.url, headers={"Authorization": f"Bearer {token}"})

    def told(path: str) -> Any:
        return raw.get(path).json()

    with raw:
        assert client.job(job).as_json() == {"duplicate": False} | told(f"/jobs/{job.job_id}")
        assert [one.as_json() for one in client.types()] == told("/types")["types"]
        letters = told("/dead-letters")["jobs"]
    assert {one.job_id: one.fingerprint for one in client.dead_letters()} == {
        one["job_id"]: one["fingerprint"] for one in letters
    }


def test_the_same_submission_twice_is_one_job(client: Any) -> None:
    one = client.submit("simulate", {"result": 1})
    named = [client.submit("simulate", {"result": 1}, job_id=one.job_id) for _ in range(2)]

    assert [again.duplicate for again in named] == [True, True]
    with pytest.raises(Refused) as refused:
        client.submit("simulate", {"result": 2}, job_id=one.job_id)
    assert (refused.value.code, refused.value.status) == ("job_id_conflict", 409)


def test_a_workflow_runs_in_order(client: Any) -> None:
    flow = client.workflow()
    first = flow.job("simulate", {"fail_attempts": 1, "retryable": False})
    rescue, never = flow.job("simulate", {"result": "rescued"}), flow.job("simulate")
    first.when("failed") >> rescue
    first >> never

    jobs = flow.submit()

    ends = [finished(client, job) for job in jobs]
    assert [end.status for end in ends] == ["failed", "completed", "cancelled"]
    assert ends[1].depends_on == [Dependency(job_id=first.job_id, when="failed")]
    assert ends[2].reason == "dependency_failed"


def test_a_cycle_is_refused_by_both_sides_alike(client: Any) -> None:
    ring = [
        Submission("simulate", job_id=f"ring-{one}", depends_on=[f"ring-{other}"])
        for one, other in (("x", "y"), ("y", "z"), ("z", "x"))
    ]
    flow = client.workflow()
    for one in ring:
        flow.add(one)

    with pytest.raises(CycleFound) as here:
        flow.submit()
    with pytest.raises(Refused) as there:
        client.submit_many(ring)

    assert there.value.code == "dependency_cycle"
    assert set(there.value.details["cycle"]) == set(here.value.cycle)


@pytest.mark.parametrize("job_id", ["a/b", "..", ".", "50% done?", "logs", "ärger #1"])
def test_any_id_can_be_used(client: Any, job_id: str) -> None:
    submitted = client.submit("simulate", job_id=job_id)

    assert client.job(job_id).job_id == submitted.job_id == job_id
    assert list(client.logs(job_id)) == []


def test_jobs_are_listed_page_after_page(client: Any) -> None:
    many = client.submit_many(
        Submission("simulate", tags=["paged"], delay_seconds=3600) for _ in range(7)
    )

    found = client.jobs(tag="paged", status=["scheduled", "ready"], limit=3, sort="oldest")

    assert {one.job_id for one in many} <= {one.job_id for one in found}
    for one in many:
        assert client.cancel(one).status == "cancelled"
    assert list(client.jobs(tag="paged", status="pending")) == []


def test_a_failed_job_runs_again(client: Any) -> None:
    job = client.submit("simulate", {"fail_attempts": 1, "retryable": False})
    finished(client, job)

    assert not client.retry(job).is_finished
    assert finished(client, job).attempt == 2
    with pytest.raises(Refused, match="not_cancellable"):
        client.cancel(job)


def test_dead_letters_run_again_with_another_payload(client: Any) -> None:
    payload = {"fail_attempts": 1, "retryable": False, "result": 7}
    jobs = client.submit_many(Submission("simulate", payload) for _ in range(2))
    for job in jobs:
        finished(client, job)

    (group,) = [one for one in client.dead_letter_groups() if one.type == "simulate"]
    ids = [one.job_id for one in jobs]
    cleared = client.retry_dead_letters(*ids, payload={"fail_attempts": 0})

    assert group.count >= 2
    assert (cleared.done, cleared.skipped) == (2, 0)
    assert [finished(client, job).result for job in jobs] == [7, 7]
    assert client.discard_dead_letters(fingerprint=group.fingerprint).done == group.count - 2
    assert list(client.dead_letters(fingerprint=group.fingerprint)) == []


def test_many_jobs_are_cancelled_by_a_job(client: Any) -> None:
    tag = f"many-{secrets.token_hex(8)}"
    later = (Submission("simulate", tags=[tag], delay_seconds=3600) for _ in range(3))
    client.submit_many(later)

    assert client.bulk("cancel", tag=tag, dry_run=True).count == 3
    done = finished(client, client.job(client.bulk("cancel", tag=tag).job_id))

    assert done.result == {"action": "cancel", "done": 3, "skipped": {}}
    assert {one.status for one in client.jobs(tag=tag)} == {"cancelled"}


def test_a_job_is_waited_for(client: Any) -> None:
    job = client.submit("simulate", {"duration_seconds": 0.2, "result": 1})

    assert client.wait(job, 30).result == 1
    assert client.wait(job, 0).is_finished
    with pytest.raises(NotFinished) as late:
        client.wait(client.submit("simulate", delay_seconds=3600), 0.1)
    assert client.cancel(late.value.job).status == "cancelled"


def test_a_log_is_followed_to_its_end(client: Any) -> None:
    job = client.submit("simulate", {"duration_seconds": 0.5, "message": "here", "steps": 3})

    followed = list(client.logs(job, follow=True))

    assert followed == list(client.logs(job))
    assert "here" in [line.message for line in followed]


def test_a_stream_goes_on_where_another_stopped(client: Any) -> None:
    job = client.submit("simulate", delay_seconds=3600)
    client.cancel(job)
    changes = client.stream(after=0)
    submitted = next(one for one in changes if one.job_id == job.job_id)
    changes.close()

    later = next(one for one in client.stream(after=submitted.seq) if one.job_id == job.job_id)

    assert (submitted.verb, later.verb, later.status) == ("submit", "cancel", "cancelled")


def test_a_schedule_is_made_changed_run_and_deleted(client: Any, stack: Stack, token: str) -> None:
    name = f"nightly-{secrets.token_hex(4)}"
    template = Submission("simulate", {"result": 5}, tags=["clocked"])

    made = client.create_schedule(name, template, cron="30 2 * * *", timezone="Europe/Berlin")

    assert len(made.next_runs) == 5
    assert made.in_words
    told = httpx.get(
        f"{stack.url}/schedules/{name}", headers={"Authorization": f"Bearer {token}"}
    ).json()
    assert made.as_json() == told
    assert client.update_schedule(name, paused=True).paused
    job = client.run_schedule(name)
    assert finished(client, job).result == 5
    assert client.job(job).as_json()["schedule"] == name
    assert name in [one.name for one in client.schedules()]
    client.delete_schedule(name)
    with pytest.raises(Refused, match="not_found"):
        client.schedule(name)


def work_plainly(url: str, token: str, kind: str, times: int) -> None:
    with Client(url, token) as client:
        worker = client.worker(types=[kind])(double)
        for _ in range(times):
            worker.turn()


def work_on_a_loop(url: str, token: str, kind: str, times: int) -> None:
    async def handle(context: Any, payload: dict[str, Any]) -> int:
        return double(context, payload)

    async def work() -> None:
        async with AsyncClient(url, token) as client:
            worker = client.worker(types=[kind])(handle)
            for _ in range(times):
                await worker.turn()

    asyncio.run(work())


def double(context: Any, payload: dict[str, Any]) -> int:
    context.progress(0.5, "half way")
    if payload["n"] < 0:
        raise DoNotRetry("nothing below zero")
    return 2 * int(payload["n"])


@pytest.mark.parametrize("work", [work_plainly, work_on_a_loop])
def test_a_function_works_as_a_pull_worker(work: Any, stack: Stack, token: str) -> None:
    kind = f"pulled-{secrets.token_hex(4)}"
    with Client(stack.url, token) as client:
        good, bad = (client.submit(kind, {"n": n}, executor="pull") for n in (21, -1))

        work(stack.url, token, kind, 2)

        assert client.wait(good, 10).result == 42
        failed = client.wait(bad, 10)
    assert (failed.status, failed.attempt) == ("failed", 1)
    assert failed.error.type == "DoNotRetry"


def test_refusals_name_the_field(client: Any) -> None:
    with pytest.raises(Refused) as refused:
        client.submit("simulate", {"duration_seconds": "long"})

    assert refused.value.code == "validation_failed"
    assert [one.path for one in refused.value.errors] == ["payload.duration_seconds"]
    assert refused.value.request_id


def test_figures_are_read(client: Any) -> None:
    assert client.stats().of == "all"
    assert client.stats().capacity.slots >= 1
    assert [one.alive for one in client.workers() if one.executor == "celery"] == [True]
    assert "simulate" in [one.name for one in client.types()]


def test_a_token_that_is_not_good_is_said_so(stack: Stack) -> None:
    with Client(stack.url, "fq_wrong") as stranger, pytest.raises(Refused) as refused:
        stranger.me()

    assert (refused.value.code, refused.value.status) == ("unauthenticated", 401)


def test_submissions_outlive_a_restart_of_the_server(client: Any, stack: Stack) -> None:
    def submit() -> None:
        made.extend(client.submit("simulate", tags=[tag]) for _ in range(2))

    made: list[Job] = []
    tag = secrets.token_hex(4)
    submitting = threading.Thread(target=submit)
    stack.kill("web")
    submitting.start()
    # Here, not there: processes end with the thread that started them.
    stack.start_again("web")
    submitting.join()

    assert len(made) == 2
    assert {one.job_id for one in client.jobs(tag=tag)} == {one.job_id for one in made}


# The command line


def test_a_login_is_all_that_programs_need(shell: Shell) -> None:
    with Client() as client:
        assert client.me().username == ADMIN[0]
        assert client.me().scopes == ["read", "submit"]

    shell.run("logout")
    shell.run("ls", code=5)


def test_a_wrong_password_signs_nobody_in(signed_out: Shell, stack: Stack) -> None:
    signed_out.run("login", stack.url, "--username", "admin", stdin="wrong\n", code=5)
    signed_out.run("ls", code=5)


def test_a_job_is_submitted_watched_and_steered(shell: Shell) -> None:
    job_id = shell.run("submit", "simulate", "message=hi", "result=42", "--tag", "typed").strip()
    (done,) = eventually(lambda: shell.json("ls", "--tag", "typed", "--status", "completed"))

    assert done["job_id"] == job_id
    assert done["result"] == 42
    assert "completed" in shell.run("show", job_id)
    assert "info     hi" in shell.run("logs", job_id)
    assert shell.json("show", job_id)[0]["attempts"][0]["outcome"] == "completed"

    later = shell.run("submit", "simulate", "--delay", "1h", "--after", job_id).strip()
    assert shell.run("cancel", later) == f"{later} cancelled\n"
    shell.run("cancel", job_id, code=5)


def test_a_file_is_submitted(shell: Shell) -> None:
    text = """
    jobs:
      one: {type: simulate, payload: {result: 1}}
      two: {type: simulate, payload: {result: 2}, depends_on: [one], tags: [filed]}
    """

    one, two = shell.run("submit-file", "-", stdin=text).split()

    (done,) = eventually(lambda: shell.json("ls", "--tag", "filed", "--status", "completed"))
    assert done["job_id"] == two
    assert done["depends_on"] == [one]
    wrong = "jobs: {odd: {type: simulate, payload: {steps: many}}}"
    shell.run("submit-file", "-", stdin=wrong, code=5)


def test_dead_letters_are_typed_away(shell: Shell) -> None:
    fails = ("simulate", "fail_attempts=1", "retryable=false", "--tag", "dead")
    job_id = shell.run("submit", *fails).strip()
    eventually(lambda: shell.json("ls", "--tag", "dead", "--status", "failed"))

    assert job_id in [one["job_id"] for one in shell.json("dead", "ls")]
    assert shell.run("dead", "retry", job_id, "--payload", '{"fail_attempts": 0}') == "1 retried\n"
    eventually(lambda: shell.json("ls", "--tag", "dead", "--status", "completed"))
    assert "discarded" in shell.run("dead", "discard", "--all")
    assert shell.json("dead", "ls") == []


def test_many_jobs_are_typed_away(shell: Shell) -> None:
    for _ in range(2):
        shell.run("submit", "simulate", "--delay", "1h", "--tag", "many")
    many = ("--tag", "many", "--status", "pending")

    assert shell.run("bulk", "cancel", *many, "--dry-run") == "2 jobs\n"
    shell.run("bulk", "prioritise", *many, "--set-priority", "low", "--yes", "--wait")
    assert {one["priority"] for one in shell.json("ls", *many)} == {"low"}
    (done,) = shell.json("bulk", "cancel", *many, "--priority", "low", "--yes", "--wait")
    assert done["result"]["done"] == 2
    assert shell.run("bulk", "cancel", *many, "--yes") == "0 jobs\n"


def test_the_service_is_looked_at(shell: Shell) -> None:
    assert "simulate" in shell.run("types")
    assert "worker1" in shell.run("workers")
    assert "everybody's" in shell.run("stats")
    assert "in use" in shell.run("top")
    (picture,) = shell.json("top")
    assert picture["username"] == ADMIN[0]
    assert picture["stats"]["workers"] == 1
