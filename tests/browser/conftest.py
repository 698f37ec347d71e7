"""Real browsers on a whole Fairq. One stack serves all tests here; each has users of its own."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    expect,
    sync_playwright,
)

from tests.browser.wire import Wire
from tests.services import Services, Stack
from tests.system.client import PASSWORD, Client

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}

PATIENCE = 20_000
"""Milliseconds; a machine that runs everything else beside has to get there, too."""

_REPORT_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy violated: ${event.violatedDirective} ${event.blockedURI}`));
"""

_numbers = itertools.count(1)


@pytest.fixture(scope="package")
def wire(services: Services) -> Iterator[Wire]:
    """What leads from the web server to its broker."""
    with Wire(services.redis_url) as wire:
        yield wire


@pytest.fixture(scope="package")
def stack(
    services: Services, wire: Wire, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """Web, scheduler and one worker that offers two CPU units."""
    directory = tmp_path_factory.mktemp("stack")
    with Stack(services, directory, FAIRQ_WORKER_CPU_UNITS="2") as stack:
        stack.start("web", REDIS_URL=wire.url)
        stack.start("scheduler")
        stack.start_worker("worker1")
        yield stack


@pytest.fixture(scope="package")
def admin(stack: Stack) -> Iterator[Client]:
    client = Client.admin(stack)
    yield client
    client.close()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class Visitor:
    """A person at a browser, and their scripts."""

    scripts: Client
    page: Page
    context: BrowserContext
    url: str
    complaints: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.scripts.username

    def open(self, path: str = "/") -> Page:
        """Open a page and wait until it is live."""
        self.page.goto(self.url + path)
        return self.settle()

    def settle(self) -> Page:
        """Wait until the scripts of a page have started and it is live."""
        self.page.locator('[data-live-state][data-state="live"]').wait_for()
        return self.page

    def cancel_everything(self) -> None:
        """Leave the workers to the next test."""
        for schedule in self.scripts.get("/schedules", owner=self.name)["schedules"]:
            name = quote(schedule["name"], safe="")
            self.scripts.call("DELETE", f"/schedules/{name}", params={"owner": self.name})
        for job in self.scripts.get("/jobs", status="pending,running,retrying", owner=self.name)[
            "jobs"
        ]:
            self.scripts.call("PATCH", f"/jobs/{quote(job['job_id'], safe='')}/cancel")

    def hear(self, message: ConsoleMessage) -> None:
        """Note what the browser complains of, beside that a server is away or refuses something."""
        expected = ("net::ERR_", "status of 409", "status of 422")
        if message.type in {"error", "warning"} and not any(
            words in message.text for words in expected
        ):
            self.complaints.append(message.text)


Visit = Callable[..., Visitor]


@pytest.fixture
def visit(stack: Stack, admin: Client, browser: Browser) -> Iterator[Visit]:
    """Make an account and sign it in at a browser of its own, which must not complain."""
    visitors: list[Visitor] = []

    def make(role: str = "user", **options: object) -> Visitor:
        name = f"visitor{next(_numbers)}"
        scripts = admin.make_user(name, role=role)
        context = browser.new_context(**{"viewport": WIDE, **options})
        context.set_default_timeout(PATIENCE)
        visitor = Visitor(scripts, watched_page(context), context, stack.url)
        visitor.page.on("console", visitor.hear)
        visitor.page.on("pageerror", lambda error: visitor.complaints.append(str(error)))
        visitors.append(visitor)
        sign_in(visitor.page, stack.url, name)
        return visitor

    yield make
    for visitor in visitors:
        visitor.context.close()
        visitor.cancel_everything()
    assert [complaint for visitor in visitors for complaint in visitor.complaints] == []


def watched_page(context: BrowserContext) -> Page:
    """Open a page that says on its console when the content security policy is violated."""
    page = context.new_page()
    page.add_init_script(_REPORT_VIOLATIONS)
    return page


def sign_in(page: Page, url: str, name: str, password: str = PASSWORD) -> None:
    """Sign in through the door."""
    page.goto(url + "/sign-in")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/browser/" in str(item.path):
            item.add_marker(pytest.mark.browser)
