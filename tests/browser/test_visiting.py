"""A person visits every page: by mouse, by keyboard, on a phone, without scripts."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import PHONE, WIDE, Visit, Visitor, sign_in, watched_page
from tests.browser.test_watching import REFRESH
from tests.services import Stack
from tests.system.client import Client
from webapp import presentation

PAGES = (
    "/",
    "/?status=failed&q=x",
    "/submit",
    "/submit?type=simulate",
    "/account",
    "/workers",
    "/schedules",
    "/new-schedule",
    "/dead-letters",
    "/dead-letters?q=nothing+like+that",
    "/dead-letters?fingerprint=unknown",
)
JOB_ID = "a job/with a % long name that has to wrap somewhere on a small screen"

AUDIT = (Path(__file__).parent / "audit.js").read_text()


@pytest.fixture
def olga(visit: Visit) -> Visitor:
    """An operator with a job in every state that is easily had."""
    olga = visit("operator")
    scripts = olga.scripts
    scripts.submit(
        job_id=JOB_ID, payload={"log_lines": 3, "result": {"rows": [1, None, "x" * 200]}}
    )
    scripts.submit(job_id="poor", payload={"fail_attempts": 1, "retryable": False}, tags=["x"])
    scripts.submit(job_id="later", delay_seconds=3600, description="Something for later")
    scripts.submit(job_id="after", depends_on=["later"])
    scripts.submit(job_id="busy", payload={"duration_seconds": 600, "steps": 600})
    nightly = {"name": "every night", "cron": "30 2 * * *", "template": {"type": "simulate"}}
    scripts.call("POST", "/schedules", json=nightly)
    scripts.wait_for("busy", "running")
    scripts.wait_for("poor", "failed")
    return olga


@pytest.fixture
def stranger(browser: Browser, stack: Stack) -> Iterator[Page]:
    """A browser at the door."""
    context = browser.new_context(viewport=WIDE)
    page = watched_page(context)
    page.goto(stack.url + "/sign-in")
    yield page
    context.close()


def pages_of(person: Visitor) -> list[str]:
    ids = (quote(JOB_ID, safe=""), "poor", "later", "after", "busy")
    [group] = person.scripts.get("/dead-letters", group=1, owner=person.name)["groups"]
    alike = f"/dead-letters?fingerprint={group['fingerprint']}&owner={person.name}"
    edit = f"/jobs/poor/edit?owner={person.name}"
    schedule = f"/schedules/every%20night?owner={person.name}"
    return [
        *PAGES,
        alike,
        edit,
        schedule,
        *(f"/jobs/{job_id}?owner={person.name}" for job_id in ids),
    ]


def test_every_page_fits_is_named_and_can_be_read_in_both_themes(olga: Visitor) -> None:
    found = {}
    for path in pages_of(olga):
        page = olga.open(path)
        for scheme, size in (("light", WIDE), ("dark", PHONE)):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size(size)
            found[path, scheme] = page.evaluate(AUDIT)

    assert {where: problems for where, problems in found.items() if problems} == {}


def test_a_wrong_password_opens_nothing_and_tells_nothing(
    stranger: Page, stack: Stack, admin: Client
) -> None:
    admin.make_user("wrongly")
    told = []
    for name in ("wrongly", "nobody-of-this-name"):
        sign_in(stranger, stack.url, name, "not-the-password")
        told.append(stranger.get_by_role("alert").inner_text())
        expect(stranger.get_by_label("Username")).to_have_value(name)
        expect(stranger.get_by_label("Password")).to_have_value("")

    assert told[0] == told[1] == "This username and password do not go together."


def test_whoever_is_sent_to_the_door_comes_back_to_where_they_wanted(
    visit: Visit, stack: Stack
) -> None:
    ann = visit()
    page = ann.open()
    page.get_by_role("button", name="Sign out").click()
    page.goto(stack.url + "/account?x=1")
    page.get_by_label("Username").fill(ann.name)
    page.get_by_label("Password").fill("a-password-for-tests")
    page.get_by_role("button", name="Sign in").click()

    expect(page).to_have_url(stack.url + "/account?x=1")


def test_the_pages_are_walked_by_keyboard(olga: Visitor) -> None:
    page = olga.open("/")
    keyboard = page.keyboard

    keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    keyboard.press("/")
    keyboard.type(f"status:failed poor owner:{olga.name}")
    keyboard.press("Enter")
    expect(page).to_have_url(f"{olga.url}/?status=failed&owner={olga.name}&q=poor")
    olga.settle()
    expect(page.locator("[data-row]")).to_have_count(1)
    keyboard.press("j")
    expect(page.locator("[data-row-link]").first).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    keyboard.press("Enter")
    expect(page.get_by_role("heading", name="poor", level=1)).to_be_visible()
    olga.settle()
    keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    keyboard.press("Escape")
    keyboard.press("g")
    expect(page).to_have_url(f"{olga.url}/")


def test_single_keys_can_be_switched_off(visit: Visit) -> None:
    ann = visit()
    page = ann.open("/account")
    page.keyboard.press("?")
    page.get_by_label("Single keys do this").uncheck()
    page.keyboard.press("Escape")

    page.reload()
    ann.settle()
    page.keyboard.press("g")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_hidden()
    page.get_by_role("button", name="Keyboard").click()
    expect(page.get_by_label("Single keys do this")).not_to_be_checked()
    expect(page).to_have_url(f"{ann.url}/account")


def test_the_menu_is_walked_by_keyboard_where_there_is_one(visit: Visit) -> None:
    page = visit(viewport=PHONE).open()
    menu, label = page.locator("#menu"), page.locator("label[for=menu]")

    for _ in range(3):
        page.keyboard.press("Tab")
    expect(menu).to_be_focused()
    assert label.evaluate("(label) => getComputedStyle(label).outlineStyle") == "solid"
    page.keyboard.press("Space")
    expect(page.get_by_role("link", name="Account")).to_be_visible()

    page.set_viewport_size(WIDE)
    expect(menu).to_be_hidden()


def test_filters_are_kept_in_the_address_and_taken_off_one_by_one(olga: Visitor) -> None:
    page = olga.open(f"/?owner={olga.name}")

    page.get_by_label("Type").select_option("simulate")
    page.wait_for_url("**type=simulate**")
    page.locator(".count", has_text="scheduled").click()
    expect(page.locator("[data-row]")).to_have_count(1)
    assert page.url == f"{olga.url}/?status=scheduled&type=simulate&owner={olga.name}"

    page.get_by_role("link", name="status: scheduled remove").click()
    expect(page.locator("[data-row]")).to_have_count(5)


def test_the_theme_is_chosen_once_and_comes_with_the_page(olga: Visitor) -> None:
    page = olga.open("/")
    page.get_by_role("button", name="Dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")

    answer = olga.context.request.get(olga.url + "/account")

    assert '<html lang="en" data-theme="dark">' in answer.text()


def test_reading_filtering_submitting_and_cancelling_work_without_scripts(visit: Visit) -> None:
    ann = visit(java_script_enabled=False)
    page = ann.page
    page.get_by_role("link", name="Submit a job").first.click()
    page.get_by_role("link", name="simulate").click()
    page.get_by_text("JSON", exact=True).click()
    page.get_by_label("Payload as JSON").fill('{"duration_seconds": ')
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.get_by_text("This is not JSON:")).to_be_visible()
    page.get_by_label("Payload as JSON").fill('{"duration_seconds": 600}')
    page.get_by_text("When, and after what").click()
    page.get_by_label("Or after a delay, in seconds").fill("3600")
    page.get_by_role("button", name="Try").click()
    expect(page.get_by_text("It would be taken, and be scheduled")).to_be_visible()
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.get_by_role("heading", name="Why it waits")).to_be_visible()

    page.get_by_role("link", name="Jobs", exact=True).first.click()
    page.get_by_label("Filter", exact=True).fill("status:scheduled")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("[data-row]")).to_have_count(1)
    page.locator("[data-row]").get_by_role("button").click()

    expect(page.get_by_text("is cancelled.")).to_be_visible()
    expect(page.get_by_text("No job matches")).to_be_visible()


def test_problems_stand_beside_their_fields_and_what_was_written_stays(visit: Visit) -> None:
    ann = visit()
    page = ann.open("/submit?type=simulate")
    page.get_by_label("Duration seconds").fill("-1")
    page.get_by_label("Fail attempts").fill("two")
    page.get_by_label("CPU units").fill("none")
    page.get_by_role("button", name="Submit", exact=True).click()

    expect(page.get_by_text("Nothing was submitted.")).to_be_visible()
    expect(page.get_by_label("CPU units")).to_have_value("none")
    expect(page.get_by_label("CPU units")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Duration seconds")).to_have_value("-1")
    page.get_by_label("CPU units").fill("")
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.get_by_label("Duration seconds")).to_have_attribute("aria-invalid", "true")


def test_what_was_written_of_a_payload_stays_whichever_way_it_is_written(visit: Visit) -> None:
    page = visit().open("/submit?type=simulate")
    area = page.get_by_label("Payload as JSON")
    by_form, by_hand = (page.get_by_text(name, exact=True) for name in ("Form", "JSON"))
    page.get_by_label("Message").fill("from the form")

    by_hand.click()
    expect(area).to_have_value(re.compile('"message": "from the form"'))
    area.fill('{"message": "by hand", "steps": 3}')
    by_form.click()
    expect(page.get_by_label("Message")).to_have_value("by hand")
    expect(page.get_by_label("Steps")).to_have_value("3")

    by_hand.click()
    for text in ('{"unheard_of": 1}', '{"message": '):
        area.fill(text)
        by_form.click()
        expect(page.locator("[data-json-problem]")).to_be_visible()
        expect(area).to_have_value(text)


def test_a_double_click_submits_one_job(visit: Visit) -> None:
    ann = visit()
    page = ann.open("/submit?type=simulate")
    page.get_by_role("button", name="Submit", exact=True).dblclick()

    expect(page.get_by_role("heading", level=1)).to_contain_text("job_")
    assert len(ann.scripts.get("/jobs")["jobs"]) == 1


def test_a_job_is_submitted_again_like_the_one_before(visit: Visit) -> None:
    ann = visit()
    ann.scripts.submit(
        job_id="model", payload={"message": "again", "duration_seconds": 0}, tags=["a", "b"]
    )
    page = ann.open("/jobs/model")
    page.get_by_role("link", name="Submit again").click()
    expect(page.get_by_label("Message")).to_have_value("again")
    page.get_by_role("button", name="Submit", exact=True).click()

    expect(page.get_by_role("heading", level=1)).to_contain_text("job_")
    expect(page.locator(".tree").last).to_contain_text('message: "again"')
    assert [job["tags"] for job in ann.scripts.get("/jobs")["jobs"]] == [["a", "b"], ["a", "b"]]


def test_a_token_is_shown_once_and_works_until_it_is_deleted(visit: Visit) -> None:
    ann = visit()
    page = ann.open("/account")
    page.get_by_label("Name").fill("from the page")
    page.get_by_role("button", name="Make the token").click()
    secret = page.locator("#secret").inner_text()
    me = {"Authorization": f"Bearer {secret}"}
    assert ann.context.request.get(ann.url + "/me", headers=me).ok
    assert page.evaluate(REFRESH)
    assert page.locator("#secret").inner_text() == secret  # live news do not take it away

    ann.open("/account")
    assert secret not in page.content()
    page.get_by_role("button", name="Delete from the page").click()
    page.get_by_role("button", name="Yes").click()

    expect(page.get_by_text("The token from the page is deleted.")).to_be_visible()
    assert ann.context.request.get(ann.url + "/me", headers=me).status == 401


def test_durations_read_the_same_from_scripts_and_from_the_server(visit: Visit) -> None:
    page = visit().open("/account")
    values = [0.0, 3.14, 9.94, 10.0, 59.9, 60.0, 61.5, 3599.0, 3600.0, 7265.0, 86400.0, 200000.0]

    shown = page.evaluate(
        "async (values) => { const clock = await import('/static/js/clock.js');"
        " return values.map((value) => clock.duration(value)); }",
        values,
    )

    assert shown == [presentation.duration(value) for value in values]
