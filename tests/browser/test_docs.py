"""The interactive documentation, under the policy that every page is under."""

from playwright.sync_api import expect

from tests.browser.conftest import Visit


def test_the_interface_can_be_read_and_tried(visit: Visit) -> None:
    visitor = visit()
    page = visitor.page

    page.goto(visitor.url + "/docs")

    page.locator("#operations-jobs-submit_job").get_by_role("button").first.click()
    page.get_by_role("button", name="Try it out").click()
    body = page.locator("#operations-jobs-submit_job textarea")
    body.fill('{"type": "simulate", "job_id": "from-the-docs"}')
    page.get_by_role("button", name="Execute").click()
    answer = page.locator("#operations-jobs-submit_job .live-responses-table tbody")
    expect(answer.locator(".response-col_status")).to_contain_text("201")
    assert visitor.scripts.get("/jobs/from-the-docs")["job_id"] == "from-the-docs"


def test_nothing_is_loaded_from_elsewhere(visit: Visit) -> None:
    visitor = visit()
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(request.url))

    visitor.page.goto(visitor.url + "/docs", wait_until="networkidle")

    expect(visitor.page.get_by_text("Submit a job", exact=True)).to_be_visible()
    assert len(asked) >= 5
    assert [url for url in asked if not url.startswith((visitor.url, "data:"))] == []


def test_the_theme_that_was_chosen_holds_here_too(visit: Visit) -> None:
    visitor = visit(color_scheme="light")
    page = visitor.open()
    page.get_by_role("button", name="Dark").click()

    page.goto(visitor.url + "/docs")

    expect(page.locator("html")).to_have_class("dark-mode")
