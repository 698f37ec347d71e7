"""A person makes a schedule, watches it make jobs, and stops it."""

from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.test_watching import is_marked, mark


def test_a_schedule_is_made_watched_paused_and_deleted(visit: Visit) -> None:
    ann = visit()
    page = ann.open("/schedules")
    page.get_by_role("link", name="New schedule").click()
    ann.settle()
    page.get_by_label("Name").fill("every second")
    page.get_by_label("Cron line").fill("61 * * * *")
    page.get_by_role("button", name="Make the schedule").click()
    expect(page.get_by_label("Cron line")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Cron line").fill("")
    page.get_by_label("Or every so many seconds").fill("1")
    page.get_by_role("button", name="Make the schedule").click()
    ann.settle()
    mark(page)

    jobs = page.locator("#schedule .neighbour a")
    expect(jobs.nth(1)).to_contain_text("every second@")
    assert is_marked(page)

    page.get_by_role("button", name="Pause every second").click()
    ann.settle()
    expect(page.locator("#schedule")).to_contain_text("paused")
    page.get_by_role("button", name="Run now every second").click()
    ann.settle()
    expect(jobs.first).to_contain_text("every second@manual_")

    page.get_by_role("button", name="Delete every second").click()
    page.get_by_role("button", name="Yes").click()
    ann.settle()
    expect(page.get_by_text("No schedules")).to_be_visible()


def test_a_tick_that_makes_no_job_is_seen(visit: Visit) -> None:
    ann = visit()
    template = {"type": "simulate", "payload": {"duration_seconds": 60}}
    body = {"name": "slow", "every_seconds": 2, "overlap": "skip", "template": template}
    ann.scripts.call("POST", "/schedules", json=body)
    page = ann.open("/schedules/slow")
    mark(page)

    expect(page.locator("#schedule")).to_contain_text("skipped because a job was unfinished")
    assert is_marked(page)
