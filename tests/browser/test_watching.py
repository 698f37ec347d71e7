"""A person watches jobs: nothing here reloads a page."""

import contextlib
import os
import signal
from collections.abc import Iterator

from playwright.sync_api import Locator, Page, WebSocketRoute, expect

from tests.browser.conftest import Visit, Visitor
from tests.browser.wire import Wire
from tests.services import Stack
from tests.system.client import Client
from webapp.views.jobs import LOGS_SHOWN

SLOW = {"duration_seconds": 8, "steps": 40}
REFRESH = "async () => (await import('/static/js/refresh.js')).now()"
"""Brings the page up to date at once, and tells whether it is."""
CUT_OFF = "41"
"""What Socket.IO sends to whoever may no longer listen."""


def test_a_job_is_watched_from_its_submission_to_its_end(visit: Visit, stack: Stack) -> None:
    ann = visit()
    everything = {"cpu_units": 2}
    ann.scripts.submit(
        job_id="first", payload={"duration_seconds": 120}, resource_requirements=everything
    )
    submit_by_form(ann, "watched", duration=4, steps=40)
    page = ann.page
    mark(page)

    expect(status(page)).to_have_text("ready")
    expect(page.get_by_text("Why it waits")).to_be_visible()
    with paused(stack, "worker1"):
        ann.scripts.call("PATCH", "/jobs/first/cancel")
        expect(status(page)).to_have_text("queued")
    expect(status(page)).to_have_text("running")
    first = moving_progress(page, above=0)
    moving_progress(page, above=first)
    expect(status(page)).to_have_text("completed")
    expect(page.get_by_role("heading", name="Timeline")).to_be_visible()
    expect(page.locator(".hop strong")).to_have_text(
        ["Submitted", "Admitted", "Started", "Completed"]
    )
    assert is_marked(page)


def test_the_table_follows_a_job_and_tells_its_end_to_its_owner_alone(visit: Visit) -> None:
    ann, bob = visit(), visit()
    page, others = ann.open(), bob.open()
    mark(page)
    job_id = f"told-{ann.name}"

    ann.scripts.submit(job_id=job_id, payload=SLOW, tags=["told"])
    row = page.locator("[data-row]", has_text=job_id)
    expect(row).to_be_visible()
    expect(row.locator("[data-status-chip]")).to_have_text("running")
    moving_progress(page, above=0)
    elapsed = row.locator("[data-tick]")
    shown = elapsed.inner_text()
    expect(elapsed).not_to_have_text(shown)  # it ticks while nothing arrives
    expect(row.locator("[data-status-chip]")).to_have_text("completed")
    expect(page.locator(".toast")).to_contain_text(f"{job_id} completed")
    expect(page.locator("[data-bell-count]")).to_have_text("1")
    assert is_marked(page)

    page.locator("[data-bell] summary").click()
    expect(page.locator(".bell-item")).to_contain_text(f"{job_id} completed")
    expect(page.locator("[data-bell-count]")).to_be_hidden()
    expect(others.get_by_text("No jobs yet")).to_be_visible()
    expect(others.locator(".toast, .bell-item, [data-row]")).to_have_count(0)
    assert job_id not in others.content()


def test_a_failure_is_told_with_its_error_and_each_attempt_keeps_its_own(visit: Visit) -> None:
    ann = visit()
    page = ann.open()

    ann.scripts.submit(
        job_id=f"fails-{ann.name}",
        payload={"fail_attempts": 9},
        retry_config={"max_attempts": 2, "strategy": "fixed", "base_delay_seconds": 0},
    )
    toast = page.locator(".toast")
    expect(toast).to_contain_text(f"fails-{ann.name} failed")
    expect(toast).to_contain_text("SimulatedFailure")
    toast.get_by_role("link").click()

    expect(page.locator(".attempt")).to_have_count(2)
    expect(page.locator(".attempt-error p").nth(0)).to_contain_text("attempt 1 of 9")
    expect(page.locator(".attempt-error p").nth(1)).to_contain_text("attempt 2 of 9")
    expect(page.locator(".big-error")).to_contain_text("attempt 2 of 9")


def test_log_lines_appear_as_they_are_written_and_can_be_narrowed(visit: Visit) -> None:
    ann = visit()
    job_id = f"talks-{ann.name}"
    gate = ann.scripts.submit(delay_seconds=3600)["job_id"]
    ann.scripts.submit(
        job_id=job_id,
        depends_on=[{"job_id": gate, "when": "finished"}],
        payload={"log_lines": 30, "message": "hello"},
    )
    page = ann.open(f"/jobs/{job_id}")
    expect(page.get_by_text("Nothing yet.")).to_be_visible()
    expect(status(page)).to_have_text("blocked")

    ann.scripts.call("PATCH", f"/jobs/{gate}/cancel")
    lines = page.locator(".log-line")
    expect(lines).to_have_count(31)
    expect(lines.first).to_contain_text("hello")
    expect(lines.last).to_contain_text("line 30 of 30")

    page.get_by_label("Least level shown").select_option("error")
    expect(lines.first).to_be_hidden()


def test_a_log_says_where_lines_are_missing_and_that_there_are_none(
    visit: Visit, wire: Wire
) -> None:
    ann = visit()
    job_id = f"lines-{ann.name}"
    payload = {"log_lines": 250, "fail_attempts": 1}
    ann.scripts.submit(job_id=job_id, payload=payload, retry_config={"max_attempts": 1})
    ann.scripts.wait_for(job_id, "failed")
    page = ann.open(f"/jobs/{job_id}")

    wire.cut()
    page.route(page.url, lambda route: route.abort())
    expect(page.locator("[data-live-state]")).to_have_text("Catching up")
    ann.scripts.call("POST", f"/jobs/{job_id}/retry")
    ann.scripts.wait_for(job_id, "completed")
    page.unroute(page.url)
    wire.mend()
    expect(status(page)).to_have_text("completed")
    expect(page.get_by_text("Lines are missing here.")).to_have_count(1)
    expect(page.locator(".log-line")).to_have_count(2 * LOGS_SHOWN)

    ann.scripts.submit(job_id=f"silent-{ann.name}", delay_seconds=3600)
    ann.open(f"/jobs/silent-{ann.name}")
    expect(page.get_by_text("Nothing yet.")).to_be_visible()
    ann.scripts.call("PATCH", f"/jobs/silent-{ann.name}/cancel")
    expect(page.get_by_text("It has written nothing.")).to_be_visible()


def test_a_running_job_is_stopped_after_a_question(visit: Visit) -> None:
    ann = visit()
    job_id = f"stopped-{ann.name}"
    ann.scripts.submit(job_id=job_id, payload={"duration_seconds": 60})
    page = ann.open()
    row = page.locator("[data-row]", has_text=job_id)
    expect(row.locator("[data-status-chip]")).to_have_text("running")

    row.get_by_role("button", name=f"Cancel {job_id}").click()
    page.get_by_role("button", name="No").click()
    expect(row.locator("[data-status-chip]")).to_have_text("running")
    row.get_by_role("button", name=f"Cancel {job_id}").click()
    page.get_by_role("button", name="Yes").click()

    expect(row.locator("[data-status-chip]")).to_have_text("cancelled")


def test_what_is_answered_is_what_was_asked_though_the_job_has_moved_on(visit: Visit) -> None:
    ann = visit()
    job_id = f"asked-{ann.name}"
    ann.scripts.submit(job_id=job_id, payload={"duration_seconds": 60})
    page = ann.open()
    row = page.locator("[data-row]", has_text=job_id)
    chip = row.locator("[data-status-chip]")
    expect(chip).to_have_text("running")

    row.get_by_role("button", name=f"Cancel {job_id}").click()
    ann.scripts.call("PATCH", f"/jobs/{job_id}/cancel")
    expect(chip).to_have_text("cancelled")
    assert not page.evaluate(REFRESH)  # the page waits for the answer
    page.get_by_role("button", name="Yes").click()

    expect(page.locator(".toast")).to_contain_text("Not cancelled")
    expect(row.get_by_role("button", name=f"Retry {job_id}")).to_be_visible()
    assert ann.scripts.get(f"/jobs/{job_id}")["status"] == "cancelled"


def test_what_happened_while_the_server_was_away_is_shown_when_it_is_back(
    visit: Visit, stack: Stack
) -> None:
    ann = visit()
    job_id = f"meanwhile-{ann.name}"
    ann.scripts.submit(job_id=job_id, payload={"duration_seconds": 3})
    page = ann.open()
    chip = page.locator("[data-row]", has_text=job_id).locator("[data-status-chip]")
    expect(chip).to_have_text("running")
    mark(page)

    stack.stop("web")
    expect(page.locator("[data-live-state]")).to_have_text("Offline")
    expect(page.locator("[data-live-banner]")).to_contain_text("The connection is lost")
    expect(chip).to_have_text("running")
    stack.start_again("web")

    expect(page.locator("[data-live-state]")).to_have_text("Live", timeout=20_000)
    expect(page.locator("[data-live-banner]")).to_be_hidden()
    expect(chip).to_have_text("completed")
    expect(page.locator(".toast")).to_contain_text(f"{job_id} completed")
    assert is_marked(page)


def test_a_browser_that_was_offline_catches_up_and_is_told_in_one_breath(visit: Visit) -> None:
    ann = visit()
    page = ann.open()
    mark(page)

    ann.context.set_offline(offline=True)
    expect(page.locator("[data-live-state]")).to_have_text("Offline")
    ann.scripts.wait_for_all(ann.scripts.submit_batch([{"type": "simulate"}] * 6))
    expect(page.locator(".toast, [data-row]")).to_have_count(0)
    ann.context.set_offline(offline=False)

    expect(page.locator("[data-live-state]")).to_have_text("Live")
    expect(page.locator("[data-row][data-status=completed]")).to_have_count(6)
    expect(page.locator(".toast")).to_have_count(1)
    expect(page.locator(".toast")).to_contain_text("6 jobs ended")
    expect(page.locator("[data-bell-count]")).to_have_text("6")
    assert is_marked(page)


def test_the_page_goes_on_by_itself_while_the_broker_is_away(visit: Visit, wire: Wire) -> None:
    ann = visit()
    page = ann.open()
    mark(page)

    wire.cut()
    expect(page.locator("[data-live-state]")).to_have_text("Catching up")
    expect(page.locator("[data-live-banner]")).to_contain_text("Live updates pause")
    ann.scripts.submit(job_id=f"brokerless-{ann.name}", delay_seconds=3600)
    expect(page.locator("[data-row]")).to_contain_text(f"brokerless-{ann.name}")
    wire.mend()

    expect(page.locator("[data-live-state]")).to_have_text("Live")
    expect(page.locator("[data-live-banner]")).to_be_hidden()
    assert is_marked(page)


def test_a_page_opened_while_the_broker_is_away_says_so(visit: Visit, wire: Wire) -> None:
    page = visit().open()
    wire.cut()
    expect(page.locator("[data-live-state]")).to_have_text("Catching up")

    page.reload()
    expect(page.locator("[data-live-banner]")).to_contain_text("Live updates pause")
    assert page.evaluate(REFRESH)
    expect(page.locator("[data-live-state]")).to_have_text("Catching up")
    wire.mend()

    expect(page.locator("[data-live-state]")).to_have_text("Live")


def test_a_page_that_could_not_be_loaded_again_says_so_and_tries_again(visit: Visit) -> None:
    ann = visit()
    page = ann.open()
    mark(page)

    page.route(f"{ann.url}/", lambda route: route.abort())
    ann.scripts.submit(job_id=f"unseen-{ann.name}", delay_seconds=3600)
    expect(page.locator("[data-live-state]")).to_have_text("Catching up")
    page.unroute(f"{ann.url}/")

    expect(page.locator("[data-row]")).to_contain_text(f"unseen-{ann.name}")
    expect(page.locator("[data-live-state]")).to_have_text("Live")
    assert is_marked(page)


def test_a_page_that_the_server_has_cut_off_comes_back(visit: Visit) -> None:
    ann = visit()
    connections: list[WebSocketRoute] = []

    def carry(connection: WebSocketRoute) -> None:
        connection.connect_to_server()
        connections.append(connection)

    ann.page.route_web_socket("**/socket.io/**", carry)
    page = ann.open()
    mark(page)

    connections[-1].send(CUT_OFF)
    expect(page.locator("[data-live-state]")).to_have_text("Offline")
    expect(page.locator("[data-live-state]")).to_have_text("Live")

    ann.context.clear_cookies()
    connections[-1].send(CUT_OFF)
    expect(page.locator("[data-live-banner]")).to_contain_text("You are signed out.")
    assert is_marked(page)


def test_an_operator_sees_everybodys_jobs_move_and_the_workers(visit: Visit) -> None:
    ann, olga = visit(), visit("operator")
    page = olga.open(f"/?owner={ann.name}")
    job_id = f"seen-{ann.name}"

    ann.scripts.submit(job_id=job_id, payload=SLOW)
    row = page.locator("[data-row]", has_text=job_id)
    expect(row.locator(".cell-owner")).to_have_text(ann.name)
    expect(row.locator("[data-status-chip]")).to_have_text("running")
    olga.open("/workers")

    expect(page.get_by_role("row").filter(has_text="online")).to_contain_text("worker1")
    expect(page.locator(".worker-jobs")).to_contain_text(job_id)
    expect(page.locator(".worker-jobs")).not_to_contain_text(job_id)
    expect(page.locator(".toast")).to_have_count(0)


def test_an_operator_drains_and_resumes_a_worker_by_keyboard(visit: Visit, admin: Client) -> None:
    page = visit("operator").open("/workers")
    (name,) = [worker["name"] for worker in admin.get("/workers")["workers"]]
    row = page.get_by_role("row").filter(has_text=name)

    page.get_by_role("button", name=f"Drain {name}").press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text(f"Let {name} take no new jobs?")
    page.keyboard.press("Escape")
    expect(row).to_contain_text("online")
    page.get_by_role("button", name=f"Drain {name}").press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Yes").press("Enter")

    expect(row).to_contain_text("draining")
    expect(page.locator("[data-tile='Processes']")).to_contain_text("of 0")
    page.get_by_role("button", name=f"Shrink {name}").press("Enter")
    expect(row).to_contain_text("of 2 to 3")
    page.get_by_role("button", name=f"Grow {name}").press("Enter")
    page.get_by_role("button", name=f"Resume {name}").press("Enter")
    expect(row).to_contain_text("online")
    expect(page.locator("[data-tile='Processes']")).to_contain_text("of 4")


def submit_by_form(person: Visitor, job_id: str, *, duration: float, steps: int) -> None:
    page = person.open("/submit")
    page.get_by_role("link", name="simulate").click()
    page.get_by_label("Duration seconds").fill(str(duration))
    page.get_by_label("Steps").fill(str(steps))
    page.get_by_text("Name and words for people").click()
    page.get_by_label("Job id").fill(job_id)
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.get_by_role("heading", name=job_id, level=1)).to_be_visible()


def status(page: Page) -> Locator:
    return page.locator(".job-strip [data-status-chip]")


def moving_progress(page: Page, *, above: float) -> float:
    """Wait until the bar has moved beyond *above*; return where it is."""
    found = page.wait_for_function(
        "(above) => { const bar = document.querySelector('#main progress[value]');"
        " return bar && bar.value > above && bar.value < 1 ? bar.value : false; }",
        arg=above,
    )
    return float(found.json_value())


def mark(page: Page) -> None:
    page.evaluate("window.mark = 'here since the page was opened'")


def is_marked(page: Page) -> bool:
    return bool(page.evaluate("Boolean(window.mark)"))


@contextlib.contextmanager
def paused(stack: Stack, name: str) -> Iterator[None]:
    """Keep a process from doing anything for a while."""
    pid = stack.pid(name)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_page_that_may_not_be_seen_any_more_says_so_and_asks_no_further(
    visit: Visit, admin: Client
) -> None:
    ann, bob = visit(), visit("operator")
    job_id = f"hidden-{ann.name}"
    ann.scripts.submit(job_id=job_id, run_at="2200-01-01T00:00:00Z")
    page = bob.open(f"/jobs/{job_id}?owner={ann.name}")

    admin.call("PATCH", f"/users/{bob.name}", json={"role": "user"})
    assert page.evaluate(REFRESH) is False

    banner = page.locator("[data-live-banner]")
    expect(banner).to_contain_text("not for you to see any more")
    expect(page.locator("[data-live-state]")).to_have_text("Offline")
    banner.get_by_role("link", name="See your jobs").click()
    bob.settle()
    assert all("status of 404" in complaint for complaint in bob.complaints)
    bob.complaints.clear()
