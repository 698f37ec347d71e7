"""A person deals with jobs that failed: sees them come, retries, edits, discards."""

from playwright.sync_api import expect

from tests.browser.conftest import Visit, Visitor
from tests.browser.test_watching import is_marked, mark, status

ONCE = {"max_attempts": 1}
FAILS_FIRST = {"fail_attempts": 1}
FAILS_ALWAYS = {"fail_attempts": 99}
RUN = ("Admitted", "Started")


def fail(person: Visitor, *names: str, **payload: object) -> None:
    """Submit jobs that fail at once, and wait until they have."""
    for name in names:
        person.scripts.submit(job_id=name, payload=payload, retry_config=ONCE)
    for name in names:
        person.scripts.wait_for(name, "failed")


def test_a_failed_job_appears_is_retried_and_watched_to_its_end(visit: Visit) -> None:
    ann = visit()
    name = f"lazarus-{ann.name}"
    page = ann.open("/dead-letters")
    mark(page)
    expect(page.get_by_text("Nothing has failed for good")).to_be_visible()

    fail(ann, name, **FAILS_FIRST)
    group = page.locator(".letter")
    expect(group).to_contain_text("SimulatedFailure")
    expect(group).to_contain_text("1 job")
    expect(page.locator("#letter-count")).to_contain_text("1")
    assert is_marked(page)

    group.get_by_role("link", name="SimulatedFailure").click()
    ann.settle()
    mark(page)
    page.get_by_role("button", name=f"Retry {name}").click()
    expect(page.locator(".toast").first).to_contain_text(f"{name} runs again")
    expect(page.get_by_text("Nothing is left of this group")).to_be_visible()
    expect(page.locator("#letter-count")).to_be_empty()
    assert is_marked(page)
    ann.scripts.wait_for(name, "completed")


def test_a_retry_on_the_page_of_a_job_is_followed_without_loading_it_again(visit: Visit) -> None:
    ann = visit()
    name = f"again-{ann.name}"
    fail(ann, name, **FAILS_FIRST)
    page = ann.open(f"/jobs/{name}")
    mark(page)
    expect(page.get_by_text("In the dead letters")).to_be_visible()

    page.get_by_role("button", name="Retry", exact=True).click()

    expect(status(page)).to_have_text("completed")
    expect(page.locator(".hop strong")).to_have_text(
        [*("Submitted", *RUN, "Failed"), *("Run again", *RUN, "Completed")]
    )
    expect(page.get_by_text("In the dead letters")).to_have_count(0)
    expect(page.get_by_role("button", name="Retry", exact=True)).to_have_count(0)
    assert is_marked(page)


def test_a_failed_job_is_retried_from_the_table(visit: Visit) -> None:
    ann = visit()
    name = f"row-{ann.name}"
    fail(ann, name, **FAILS_FIRST)
    page = ann.open()
    mark(page)

    row = page.locator("[data-row]", has_text=name)
    row.get_by_role("button", name=f"Retry {name}").press("Enter")

    expect(row.locator("[data-status-chip]")).to_have_text("completed")
    expect(row.locator("[data-row-link]")).to_be_focused()  # its button is gone
    assert is_marked(page)


def test_a_group_is_retried_and_discarded_after_a_question(visit: Visit) -> None:
    ann = visit()
    kept, first, second = (f"{word}-{ann.name}" for word in ("kept", "first", "second"))
    fail(ann, first, second, **FAILS_FIRST)
    fail(ann, kept, fail_attempts=1, message="another kind", retryable=False)
    page = ann.open("/dead-letters")
    group = page.locator(".letter", has_text="2 jobs")

    group.get_by_role("button", name="Retry").click()
    expect(page.get_by_text("Run these 2 failed jobs again?")).to_be_visible()
    page.get_by_role("button", name="No", exact=True).click()
    expect(group).to_be_visible()
    group.get_by_role("button", name="Retry").click()
    page.get_by_role("button", name="Yes", exact=True).click()
    expect(page.get_by_text("2 jobs run again.")).to_be_visible()
    ann.settle()
    expect(page.locator(".letter")).to_have_count(1)

    page.get_by_role("button", name="Discard all").click()
    page.get_by_role("button", name="Yes", exact=True).click()
    expect(page.get_by_text("1 job is discarded.")).to_be_visible()
    expect(page.get_by_text("Nothing has failed for good")).to_be_visible()
    ann.open(f"/jobs/{kept}")
    expect(page.get_by_text("Discarded", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Retry", exact=True)).to_be_visible()


def test_a_payload_is_mended_and_the_job_runs_with_it(visit: Visit) -> None:
    ann = visit()
    name = f"mended-{ann.name}"
    fail(ann, name, **FAILS_ALWAYS)
    page = ann.open(f"/jobs/{name}")
    page.get_by_role("link", name="Edit and retry").click()
    ann.settle()
    area = page.get_by_label("Payload as JSON")
    expect(area).to_have_value('{\n  "fail_attempts": 99\n}')

    area.fill('{"fail_attempts": ')
    expect(page.get_by_text("This is not JSON yet")).to_be_visible()
    area.fill('{"fail_attempts": "none"}')
    expect(page.get_by_text("This is not JSON yet")).to_be_hidden()
    page.get_by_role("button", name="Retry with this payload").click()
    expect(page.get_by_text("Nothing was retried.")).to_be_visible()
    expect(page.locator("#payload-error").first).to_contain_text("fail_attempts: 'none' is not")
    area.fill('{"fail_attempts": 0}')
    page.get_by_role("button", name="Retry with this payload").click()

    expect(page.get_by_text(f"{name} runs again as soon as its turn comes.")).to_be_visible()
    expect(status(page)).to_have_text("completed")


def test_dead_letters_are_walked_by_keyboard_and_dealt_with_without_scripts(visit: Visit) -> None:
    ann, bob = visit(), visit(java_script_enabled=False)
    fail(ann, f"keys-{ann.name}", **FAILS_ALWAYS)
    page = ann.open("/dead-letters")
    page.keyboard.press("j")
    expect(page.locator("[data-row-link]")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="SimulatedFailure", level=1)).to_be_visible()
    ann.settle()
    page.keyboard.press("/")
    page.keyboard.type("no such words")
    page.keyboard.press("Enter")
    expect(page.get_by_text("No job of this group matches")).to_be_visible()

    one, two = f"one-{bob.name}", f"two-{bob.name}"
    fail(bob, one, two, **FAILS_ALWAYS)
    page = bob.page
    page.get_by_role("link", name="Dead letters").click()
    page.locator(".letter").get_by_role("link", name="SimulatedFailure").click()
    page.get_by_role("button", name=f"Discard {one}").click()
    expect(page.get_by_text(f"{one} is discarded.")).to_be_visible()
    page.get_by_role("button", name=f"Retry {two}").click()
    expect(page.get_by_text(f"{two} runs again as soon as its turn comes.")).to_be_visible()
    bob.scripts.wait_for(two, "failed")
