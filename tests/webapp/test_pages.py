import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from redis import Redis
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session

from scheduler import clock
from scheduler.events import Standing, write_curve, write_standings
from scheduler.models import Attempt, Dependency, Job, JobEvent, JobLog, Received, Token, User
from scheduler.policy.curve import Queued, make_curve
from scheduler.snapshot import Clock
from scheduler.states import CancelReason, Condition, Executor, JobStatus, Role
from scheduler.store.received import beginning_of_slice
from tests.factories import (
    MINUTE,
    NOON,
    WORKER,
    make_group,
    make_job,
    make_policy,
    make_type,
    make_user,
    make_worker,
)
from tests.webapp.conftest import PASSWORD, PASSWORD_HASH, MakePerson, Person, csrf_of
from webapp.schemas.groundwork import PAGE_DEFAULT
from webapp.services import services_of

HTML = {"Accept": "text/html"}
EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>'


class Reader(HTMLParser):
    """What of a page a browser would run, load or style."""

    def __init__(self) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        self.inline += [tag] if tag == "style" or (tag == "script" and "src" not in given) else []
        if tag in {"script", "img", "link", "use"}:
            self.loaded.append(given.get("src") or given.get("href") or "")


def page_of(person: Person, path: str = "/", status: int = 200) -> str:
    answer = person.get(path, headers=HTML)
    assert answer.status_code == status, answer.text
    assert answer.mimetype == "text/html"
    return answer.text


def words_of(page: str) -> str:
    """Return what a page says, without its markup."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


def send(person: Person, path: str, **form: Any) -> Any:
    return person.ask("POST", path, data={"csrf_token": person.csrf, **form}, headers=HTML)


def rows_of(page: str) -> list[str]:
    return [
        unescape(key.rpartition("/")[2])
        for key in re.findall(r'data-key="([^"]*)" data-status="[a-z]+" data-row', page)
    ]


@pytest.fixture
def ann(signed_in: MakePerson) -> Person:
    return signed_in("ann")


def test_who_is_not_signed_in_is_sent_to_the_door_and_comes_back(app: Flask) -> None:
    client = app.test_client()

    answer = client.get("/account?x=1", headers=HTML)
    door = client.get(answer.location, headers=HTML)

    assert answer.status_code == 302
    assert answer.location == "/sign-in?next=/account?x%3D1"
    assert 'name="next" value="/account?x=1"' in door.text


def test_who_comes_back_comes_to_the_very_same_page(app: Flask) -> None:
    path = "/jobs/why%3Fnot%23now/edit?owner=ann"

    answer = app.test_client().get(path, headers=HTML, environ_overrides={"RAW_URI": path})

    assert answer.location == "/sign-in?next=" + quote(path, safe="/?")


FORM_PAGE = "/jobs/why%3Fnot?owner=ann"
DO_IT_AGAIN = "Your session has ended; sign in and do it again."


@pytest.mark.parametrize("path", ["/account/tokens", "/jobs/x/cancel", "/jobs/x/retry"])
@pytest.mark.parametrize("token", ["right", "lost"])
def test_a_form_of_an_ended_session_leads_back_to_its_page(
    ann: Person, store: Session, path: str, token: str
) -> None:
    store.get_one(User, ann.user.id).session_version += 1
    store.commit()
    ann.csrf = ann.csrf if token == "right" else None

    headers = HTML | {"Referer": f"http://localhost{FORM_PAGE}"}
    answer = ann.ask("POST", path, data={"csrf_token": ann.csrf}, headers=headers)
    door = ann.client.get(answer.location, headers=HTML).text

    assert answer.status_code == 302
    assert DO_IT_AGAIN in door
    assert f'name="next" value="{FORM_PAGE}"' in door


@pytest.mark.parametrize(
    "referrer", [f"http://evil.example{FORM_PAGE}", "http://localhost//evil.example", ""]
)
def test_a_form_of_no_page_of_ours_leads_back_to_the_front(app: Flask, referrer: str) -> None:
    client = app.test_client()

    answer = client.post("/account/tokens", headers=HTML | {"Referer": referrer})
    door = client.get(answer.location, headers=HTML).text

    assert DO_IT_AGAIN in door
    assert 'name="next" value="/"' in door


def test_a_form_of_an_old_page_is_to_be_loaded_again(ann: Person) -> None:
    ann.csrf = "of another session"

    answer = send(ann, "/account/tokens", name="x")

    assert answer.status_code == 403
    assert "This page is old: load it again." in answer.text


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "/\t/evil",
        "x",
        "",
    ],
)
def test_signing_in_leads_nowhere_else(app: Flask, store: Session, target: str) -> None:
    make_user(store, "ann", password_hash=PASSWORD_HASH)
    store.commit()
    client = app.test_client()
    form = {"username": "ann", "password": PASSWORD, "next": target, "csrf_token": csrf_of(client)}

    answer = client.post("/sign-in", data=form, headers=HTML)

    assert (answer.status_code, answer.location) == (302, "/")


def test_too_many_attempts_are_told_at_the_door(app: Flask) -> None:
    client = app.test_client()
    form = {"username": "ann", "password": "wrong", "csrf_token": csrf_of(client)}

    answers = [client.post("/sign-in", data=form, headers=HTML) for _ in range(11)]

    assert [answer.status_code for answer in answers] == [401] * 10 + [429]
    assert "Too many attempts" in answers[-1].text
    assert int(answers[-1].headers["Retry-After"]) > 0


def test_attempts_are_counted_by_the_name_in_the_form_whatever_a_header_says(app: Flask) -> None:
    client = app.test_client()
    form = {"password": "wrong", "csrf_token": csrf_of(client)}
    names = ["ann", " ann", "Ann ", "ANN", "ann"] * 2 + ["ann"]

    answers = [
        client.post("/sign-in", data=form | {"username": name}, auth=(f"other{number}", "x"))
        for number, name in enumerate(names)
    ]

    assert [answer.status_code for answer in answers] == [401] * 10 + [429]


def test_the_right_password_of_one_name_forgives_no_other(app: Flask, store: Session) -> None:
    make_user(store, "bob", password_hash=PASSWORD_HASH)
    store.commit()
    client = app.test_client()
    form = {"username": "ann", "password": "wrong", "csrf_token": csrf_of(client)}
    for _ in range(10):
        client.post("/sign-in", data=form)

    bob = form | {"username": "bob", "password": PASSWORD}
    signed_in = client.post("/sign-in", data=bob, auth=("ann", "x"))
    form["csrf_token"] = csrf_of(client)

    assert signed_in.status_code == 302
    assert client.post("/sign-in", data=form).status_code == 429


def test_signing_out_ends_the_session(ann: Person) -> None:
    answer = send(ann, "/sign-out")

    assert answer.location == "/sign-in"
    assert ann.get("/", headers=HTML).status_code == 302


def test_the_theme_is_rendered_by_the_server(ann: Person) -> None:
    answer = send(ann, "/theme", theme="dark", next="/account")
    wrong = send(ann, "/theme", theme="<script>", next="/account")

    assert answer.location == "/account"
    for path in ("/account", "/docs"):
        assert '<html lang="en" data-theme="dark">' in page_of(ann, path)
    assert not [cookie for cookie in wrong.headers.getlist("Set-Cookie") if "theme=" in cookie]


def test_the_table_says_of_each_job_what_matters_now(
    ann: Person, store: Session, redis_client: Redis
) -> None:
    owner = ann.user
    make_worker(store)
    waiting = make_job(store, owner, job_id="waits", priority_level=2, job_class="high")
    make_job(
        store, owner, JobStatus.RUNNING, job_id="runs", progress_fraction=0.25,
        progress_message="on it", description="What it is", tags=["nightly"],
    )  # fmt: skip
    make_job(store, owner, JobStatus.FAILED, job_id="failed", error_message="no such row")
    make_job(store, owner, JobStatus.COMPLETED, job_id="done")
    make_job(
        store, owner, JobStatus.CANCELLED, job_id="dropped",
        reason=CancelReason.DEPENDENCY_FAILED, reason_job_id="failed",
    )  # fmt: skip
    store.commit()
    write_standings(redis_client, {owner.id: {waiting.id: Standing(4, "turn", "3 go first.")}})

    page = page_of(ann)
    said = words_of(page)

    assert rows_of(page) == ["dropped", "done", "failed", "runs", "waits"]
    assert "#4" in said
    assert "3 go first." in said
    assert "high 2" in said
    assert '<progress max="1" value="0.25"' in page
    assert "25% on it" in said
    assert "What it is nightly" in said
    assert "ValueError no such row" in said
    assert "failed, which it waited for, did not complete" in said
    assert "Owner" not in said


def test_only_operators_see_everybody_and_whose_jobs_they_are(
    ann: Person, signed_in: MakePerson, store: Session
) -> None:
    bob, olga = signed_in("bob"), signed_in("olga", Role.OPERATOR)
    make_job(store, ann.user, job_id="same")
    make_job(store, bob.user, job_id="same")
    store.commit()

    assert page_of(ann).count("data-row-link") == 1
    everybody = page_of(olga)
    assert everybody.count("data-row-link") == 2
    assert 'href="/jobs/same?owner=ann"' in everybody
    assert 'href="/jobs/same?owner=bob"' in everybody
    assert rows_of(page_of(olga, "/?owner=bob")) == ["same"]
    assert rows_of(page_of(ann, "/?owner=bob")) == []


def test_filters_narrow_the_table_and_stay_in_the_address(ann: Person, store: Session) -> None:
    make_job(store, ann.user, job_id="one", tags=["nightly"], type="simulate")
    make_job(store, ann.user, JobStatus.COMPLETED, job_id="two", description="orders of May")
    make_job(store, ann.user, job_id="three", job_class="low", priority_level=8)
    store.commit()

    found = {
        query: rows_of(page_of(ann, f"/?{query}"))
        for query in (
            "status=completed",
            "tag=nightly",
            "q=MAY",
            "priority=low",
            "status=pending",
            "q=%25",
        )
    }

    assert found == {
        "status=completed": ["two"],
        "tag=nightly": ["one"],
        "q=MAY": ["two"],
        "priority=low": ["three"],
        "status=pending": ["three", "one"],
        "q=%25": [],
    }
    page = page_of(ann, "/?status=ready&tag=nightly")
    assert 'href="/?tag=nightly" title="Remove this filter"' in page
    assert 'href="/?status=ready" title="Remove this filter"' in page


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("status:running", "/?status=running"),
        ("type:a tag:b words here", "/?type=a&tag=b&q=words+here"),
        ("owner:", None),
        ("http://x", None),
        ("words", None),
    ],
)
def test_filters_may_be_said_in_the_text(ann: Person, text: str, address: str | None) -> None:
    answer = ann.get(f"/?q={quote(text)}", headers=HTML)

    assert answer.status_code == (302 if address else 200)
    assert answer.location == address


def test_a_filter_that_makes_no_sense_is_a_page_not_a_crash(ann: Person) -> None:
    assert "Something in there is not right" in page_of(ann, "/?status=odd", 422)
    assert "Something in there is not right" in page_of(ann, "/?cursor=odd", 422)


@pytest.mark.parametrize("sort", ["newest", "oldest"])
def test_pages_lead_forth_and_back_through_all_jobs(ann: Person, store: Session, sort: str) -> None:
    made = [make_job(store, ann.user).job_id for _ in range(2 * PAGE_DEFAULT + 10)]
    store.commit()
    in_order = made if sort == "oldest" else list(reversed(made))

    first = page_of(ann, f"/?sort={sort}")
    second = page_of(ann, _link(first, "next"))
    third = page_of(ann, _link(second, "next"))
    back = page_of(ann, _link(third, "prev"))
    front = page_of(ann, _link(back, "prev"))

    assert rows_of(first) + rows_of(second) + rows_of(third) == in_order
    assert rows_of(back) == rows_of(second)
    assert rows_of(front) == rows_of(first)
    assert not re.search('rel="prev"', first + front)
    assert not re.search('rel="next"', third)


def test_the_filter_bar_offers_a_tag_and_an_order_and_keeps_them(
    ann: Person, store: Session
) -> None:
    make_job(store, ann.user, job_id="one", tags=["nightly"])
    store.commit()

    page = page_of(ann, "/?tag=nightly&sort=oldest")

    assert 'id="tag" name="tag" value="nightly"' in page
    assert '<option value="oldest" selected>' in page
    assert 'href="/?sort=oldest" title="Remove this filter"' in page
    assert 'href="/jobs?tag=nightly&amp;sort=oldest&amp;format=csv" download' in page
    assert "No jobs yet" not in page


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("/", ["export", "pager"]),
        ("/dead-letters", ["pager"]),
        ("/dead-letters?fingerprint=x", ["pager"]),
        ("/schedules", ["pager"]),
    ],
)
def test_what_an_empty_page_may_come_to_need_has_its_place(
    ann: Person, path: str, parts: list[str]
) -> None:
    assert re.findall(r'id="(\w+)" data-part hidden', page_of(ann, path)) == parts


def test_empty_tables_say_what_helps(ann: Person) -> None:
    assert "No jobs yet" in page_of(ann)
    assert "No job matches" in page_of(ann, "/?status=failed")


def test_the_table_costs_the_same_for_one_job_and_for_many(
    ann: Person, store: Session, engine: Engine
) -> None:
    make_job(store, ann.user)
    store.commit()
    one = _statements(engine, lambda: page_of(ann))
    for _ in range(30):
        make_job(store, ann.user, JobStatus.RUNNING)
        make_job(store, ann.user)
    store.commit()

    many = _statements(engine, lambda: page_of(ann))

    assert many == one


def test_a_jobs_page_tells_its_whole_story(ann: Person, store: Session) -> None:
    owner = ann.user
    parent = make_job(store, owner, JobStatus.COMPLETED, job_id="parent")
    job = make_job(
        store, owner, JobStatus.FAILED, job_id="story", attempt=2, description="Words",
        payload={"deep": {"er": [1, None, True, "text"]}}, error_message="row 7 is odd",
        reason=None,
    )  # fmt: skip
    child = make_job(store, owner, JobStatus.BLOCKED, job_id="child")
    store.add(
        Dependency(child_id=job.id, parent_id=parent.id, condition=Condition.FINISHED, met=True)
    )
    store.add(Dependency(child_id=child.id, parent_id=job.id, condition=Condition.COMPLETED))
    store.query(Attempt).filter_by(job_id=job.id).update(
        {"outcome": "failed", "error_type": "ValueError", "error_message": "row 7 is odd",
         "traceback": "Traceback of two", "peak_memory_mb": 200.0, "cpu_seconds": 30.0}
    )  # fmt: skip
    store.add(
        Attempt(
            job_id=job.id, attempt=1, worker="w", pid=1, queued_at=NOON, started_at=NOON,
            finished_at=NOON + MINUTE, outcome="lost", error_type="WorkerLost",
            error_message="it vanished",
        )
    )  # fmt: skip
    for step, (verb, status) in enumerate(
        [("submit", "ready"), ("admit", "queued"), ("start", "running"), ("fail", "failed")]
    ):
        at = NOON + step * timedelta(seconds=90)
        store.add(
            JobEvent(job_id=job.id, owner_id=owner.id, at=at, verb=verb, status=status, attempt=1)
        )
    store.add(JobLog(job_id=job.id, attempt=1, at=NOON, level="warning", message="careful"))
    store.commit()

    page = page_of(ann, "/jobs/story")
    said = words_of(page)

    assert re.findall(r"<strong>(\w+)</strong>", page[page.index("timeline-title") :])[:4] == [
        "Submitted",
        "Admitted",
        "Started",
        "Failed",
    ]
    assert said.count("+1 min 30 s") == 3
    assert "Attempt 1" in said
    assert "Lost with its worker" in said
    assert "WorkerLost it vanished" in said
    assert "ValueError row 7 is odd" in said
    assert "Traceback of two" in said
    assert "warning careful" in said
    assert "completed parent when finished" in said
    assert "blocked child" in said
    assert "200 MB of 128 MB" in said
    assert "More than it asked for" in said
    assert "0.5 of 1 unit" in said
    assert "er [ 4 ]" in said
    assert 'href="/submit?like=story"' in page
    assert "curl http://localhost/jobs" in said


def test_a_waiting_job_says_why_where_and_until_when(
    ann: Person, store: Session, redis_client: Redis
) -> None:
    job = make_job(store, ann.user, job_id="waits")
    store.commit()
    standing = Standing(2, "resources", "It needs 4 CPU units.", NOON, NOON + MINUTE, "simulation")
    write_standings(redis_client, {ann.user.id: {job.id: standing}})

    said = words_of(page_of(ann, "/jobs/waits"))

    assert "#2 Why it waits It needs 4 CPU units." in said
    assert "probably starts" in said
    assert "at the latest" in said


def test_a_foreign_job_looks_exactly_like_a_missing_one(
    ann: Person, signed_in: MakePerson, store: Session
) -> None:
    bob = signed_in("bob")
    make_job(store, ann.user, job_id="theirs")
    store.commit()

    pages = [
        re.sub("req_[a-z0-9]+", "", page_of(bob, path, 404).replace(name, ""))
        for path, name in (("/jobs/theirs", "theirs"), ("/jobs/missing", "missing"))
    ]

    assert pages[0] == pages[1]


@pytest.mark.parametrize("job_id", ["a/b", "a b?c#d", "100%", "ünï", "..", "a/cancel", "x&y=<z>"])
def test_every_job_id_has_a_page_that_the_table_leads_to(
    ann: Person, store: Session, job_id: str
) -> None:
    make_job(store, ann.user, job_id=job_id)
    store.commit()
    path = unescape(re.findall(r'class="job-link mono" href="([^"]+)"', page_of(ann))[0])

    page = page_of_raw(ann, path)

    assert f'<h1 class="mono">{_escaped(job_id)}</h1>' in page


def test_nothing_a_person_wrote_becomes_markup(ann: Person, store: Session) -> None:
    job = make_job(
        store, ann.user, JobStatus.FAILED, job_id=f"x{EVIL}"[:200], description=EVIL,
        tags=[EVIL[:99]],
        payload={EVIL: [EVIL, {EVIL: EVIL}]}, result={"r": EVIL}, error_type=EVIL,
        error_message=EVIL, progress_message=EVIL,
    )  # fmt: skip
    store.add(JobLog(job_id=job.id, attempt=1, at=NOON, level=EVIL, message=EVIL))
    store.add(
        JobEvent(
            job_id=job.id, owner_id=ann.user.id, at=NOON, verb=EVIL, status="failed", attempt=1,
            data={"error": EVIL, "worker": EVIL},
        )
    )  # fmt: skip
    store.query(Attempt).filter_by(job_id=job.id).update(
        {"error_type": EVIL, "error_message": EVIL, "traceback": EVIL, "worker": EVIL}
    )
    make_type(
        store,
        EVIL,
        description=EVIL,
        payload_schema={"properties": {EVIL: {"description": EVIL, "default": EVIL}}},
    )
    store.commit()
    paths = [
        "/",
        f"/?q={quote(EVIL)}",
        f"/jobs/{quote(job.job_id, safe='')}",
        "/submit",
        f"/submit?type={quote(EVIL)}",
        f"/sign-in?next=/{quote(EVIL)}",
    ]

    for path in paths:
        page = page_of_raw(ann, path)
        assert "<script>alert" not in page, path
        assert "<img src=x" not in page, path


def test_pages_hold_nothing_inline_and_load_only_what_is_there(
    signed_in: MakePerson, store: Session
) -> None:
    olga = signed_in("olga", Role.OPERATOR)
    make_worker(store)
    make_job(store, olga.user, JobStatus.RUNNING, job_id="a")
    store.commit()
    loaded: set[str] = set()

    for path in (
        "/",
        "/jobs/a",
        "/submit",
        "/submit?type=simulate",
        "/account",
        "/workers",
        "/none",
    ):
        reader = Reader()
        reader.feed(olga.get(path, headers=HTML).text)
        assert reader.inline == [], path
        loaded |= {url.partition("#")[0] for url in reader.loaded}

    assert loaded
    assert all(url.startswith("/static/") for url in loaded)
    for url in loaded:
        with olga.client.get(url) as answer:
            assert answer.status_code == 200, url


def test_every_icon_that_is_named_is_in_the_sprite(app: Flask) -> None:
    sprite = (_folder(app) / "static/vendor/lucide-1.62.0/icons.svg").read_text()
    known = set(re.findall(r'symbol id="([^"]+)"', sprite))
    templates = (_folder(app).parent / "templates").rglob("*.html")
    scripts = (_folder(app) / "static/js").glob("*.js")

    named = {
        name
        for file in [*templates, *scripts]
        for name in re.findall(r'\bicon\("([^"]+)"\)', file.read_text())
    }
    workers = (_folder(app).parent / "templates/workers/index.html").read_text()
    named |= set(re.findall(r'"(?:online|draining|silent)": "([^"]+)"', workers))

    assert named <= known
    assert {str(status) for status in JobStatus} <= known


def test_the_form_of_a_type_asks_for_its_payload(ann: Person, store: Session) -> None:
    schema = {
        "properties": {"rows": {"type": "integer", "description": "How many."}},
        "required": ["rows"],
    }
    make_type(store, "export", payload_schema=schema, description="Writes rows.")
    store.commit()

    page = page_of(ann, "/submit?type=export")

    assert 'name="payload.rows"' in page
    assert "How many." in page
    assert "Writes rows." in page
    assert "There is nothing here" in page_of(ann, "/submit?type=unknown", 404)


def test_the_servers_own_errands_are_not_offered(ann: Person, store: Session) -> None:
    make_type(store, "bulk")
    store.commit()

    offered = re.findall(r'href="/submit\?type=(\w+)"', page_of(ann, "/submit"))

    assert offered == ["simulate"]


def test_a_filled_form_submits_a_job_and_leads_to_it(ann: Person, store: Session) -> None:
    answer = send(
        ann,
        "/submit?type=simulate",
        mode="json",
        payload='{"rows": 3}',
        priority="2",
        cpu_units="0.5",
        tags="a, b",
        job_id="made/by hand",
        delay_seconds="60",
    )

    job = store.query(Job).one()
    assert answer.location == "/jobs/made%2Fby%20hand"
    assert (job.payload, job.priority_level, job.tags) == ({"rows": 3}, 2, ["a", "b"])
    assert job.status == JobStatus.SCHEDULED
    assert "made/by hand is submitted." in words_of(page_of_raw(ann, answer.location))


def test_the_same_form_again_makes_no_second_job(ann: Person, store: Session) -> None:
    for _ in range(2):
        answer = send(ann, "/submit?type=simulate", mode="json", payload="{}", job_id="once")

    assert answer.location == "/jobs/once"
    assert store.query(Job).count() == 1


def test_a_form_that_is_sent_twice_makes_one_job_and_a_changed_one_another(
    ann: Person, store: Session
) -> None:
    [key] = re.findall(r'name="once" value="([^"]+)"', page_of(ann, "/submit?type=simulate"))
    form = {"mode": "json", "payload": "{}", "once": key}

    first = send(ann, "/submit?type=simulate", **form)
    again = send(ann, "/submit?type=simulate", **form)
    changed = send(ann, "/submit?type=simulate", **form | {"priority": "2"})

    assert first.location == again.location != changed.location
    assert store.query(Job).count() == 2
    assert key not in page_of(ann, "/submit?type=simulate")


def test_a_try_tells_place_and_start_and_makes_nothing(
    ann: Person, store: Session, redis_client: Redis
) -> None:
    make_worker(store)
    store.commit()
    lines = [Queued(tag=0.0, weight=1.0, waiting=5, mean_cost=1.0)]
    curve = make_curve(lines, clock=Clock(virtual_now=100.0, mean_cost=1.0), starts=1.0)
    write_curve(redis_client, curve)
    form = {"mode": "json", "payload": '{"rows": 3}', "description": "A try", "once": "k"}

    tried = send(ann, "/submit?type=simulate", **form, **{"try": "yes"})
    made = send(ann, "/submit?type=simulate", **form)

    assert tried.status_code == 200
    said = words_of(tried.text)
    assert "#6 It would be taken, and be ready" in said
    assert "about 5 jobs go first" in said
    assert "It would probably start" in said
    assert "nothing is submitted" in said
    assert 'value="A try"' in tried.text
    assert [f"/jobs/{job.job_id}" for job in store.query(Job)] == [made.location]


def test_a_try_of_what_is_there_says_so(ann: Person, store: Session) -> None:
    form = {"mode": "json", "payload": "{}", "job_id": "there"}
    send(ann, "/submit?type=simulate", **form)

    tried = send(ann, "/submit?type=simulate", **form, **{"try": "yes"})
    other = send(ann, "/submit?type=simulate", **form | {"try": "yes", "priority": "0"})

    assert "there is there already, and the same" in words_of(tried.text)
    assert other.status_code == 422
    assert 'id="job_id-error"' in other.text


@pytest.mark.parametrize(
    ("form", "where"),
    [
        ({"payload": "{"}, "payload"),
        ({"payload": "[]"}, "payload"),
        ({"cpu_units": "many"}, "cpu_units"),
        ({"cpu_units": "1000"}, "cpu_units"),
        ({"depends_on": "nobody"}, "depends_on"),
        ({"priority": "11"}, "priority"),
        ({"run_at": "soon"}, "run_at"),
        ({"timeout_seconds": "-1"}, "timeout_seconds"),
        ({"job_id": "\n\x07"}, "job_id"),
        ({"job_id": "taken"}, "job_id"),
    ],
)
def test_what_is_wrong_is_told_beside_its_field_and_nothing_is_stored(
    ann: Person, store: Session, form: dict[str, str], where: str
) -> None:
    make_worker(store)
    make_job(store, ann.user, job_id="taken")
    store.commit()

    answer = send(ann, "/submit?type=simulate", **{"mode": "json", "payload": "{}", **form})

    assert answer.status_code == 422
    assert f'id="{where}-error"' in answer.text
    assert "Nothing was submitted." in answer.text
    assert store.query(Job).count() == 1


def test_a_job_of_somebody_else_is_repeated_as_ones_own_and_that_is_told(
    ann: Person, signed_in: MakePerson, store: Session
) -> None:
    olga = signed_in("olga", Role.OPERATOR)
    make_job(
        store, ann.user, job_id="anns", estimated_seconds=1_234_567.0,
        callback_url="https://host/told",
    )  # fmt: skip
    store.commit()

    own, foreign = page_of(ann, "/submit?like=anns"), page_of(olga, "/submit?like=anns&owner=ann")

    told = "anns is a job of ann; what you submit here is yours."
    assert told in words_of(foreign)
    assert told not in words_of(own)
    assert 'name="estimated_seconds" value="1234567"' in own
    assert 'name="callback_url" value="https://host/told"' in own
    assert "&#34;estimated_seconds&#34;: 1234567.0" in page_of(ann, "/jobs/anns")


def test_a_job_is_repeated_by_form_if_its_type_has_one(ann: Person, store: Session) -> None:
    make_job(store, ann.user, job_id="known")
    make_job(store, ann.user, job_id="unknown", type="scan", executor=Executor.PULL)
    store.commit()

    assert "Submit again" in page_of(ann, "/jobs/known")
    page = page_of(ann, "/jobs/unknown")
    assert "Submit again" not in page
    assert "&#34;executor&#34;: &#34;pull&#34;" in page


def test_who_runs_a_job_is_asked_where_there_is_a_choice(ann: Person, store: Session) -> None:
    make_type(store, "either", executors=["celery", "pull"])
    store.commit()

    assert '<option value="pull">pull</option>' in page_of(ann, "/submit?type=either")
    assert 'name="executor"' not in page_of(ann, "/submit?type=simulate")


def test_viewers_are_offered_nothing_they_may_not_do(signed_in: MakePerson, store: Session) -> None:
    vera = signed_in("vera", Role.VIEWER)

    page = page_of(vera)

    assert "Submit a job" not in page
    assert "/workers" not in page


def test_cancelling_leads_back_to_where_the_button_was(ann: Person, store: Session) -> None:
    make_job(store, ann.user, job_id="waits")
    make_job(store, ann.user, JobStatus.RUNNING, job_id="runs")
    make_job(store, ann.user, JobStatus.COMPLETED, job_id="done")
    store.commit()

    waits = send(ann, "/jobs/waits/cancel", next="/?status=ready")
    told = words_of(page_of(ann))
    runs = send(ann, "/jobs/runs/cancel", next="//evil.example")
    done = send(ann, "/jobs/done/cancel")

    assert (waits.location, runs.location, done.location) == ("/?status=ready", "/", "/jobs/done")
    assert "waits is cancelled." in told
    said = words_of(page_of(ann))
    assert "runs is asked to stop." in said
    assert "done had finished before." in said


def test_a_job_that_was_asked_to_stop_says_so_and_is_not_asked_again(
    ann: Person, store: Session
) -> None:
    make_job(store, ann.user, JobStatus.RUNNING, job_id="runs", progress_message="at row 7")
    store.commit()
    before = page_of(ann)
    send(ann, "/jobs/runs/cancel")

    for page in (page_of(ann), page_of(ann, "/jobs/runs")):
        assert "Stopping" in words_of(page)
        assert "at row 7" not in words_of(page)
        assert 'action="/jobs/runs/cancel"' not in page
    assert 'action="/jobs/runs/cancel"' in before
    assert 'data-done="runs is asked to stop"' in before


def test_a_new_token_is_shown_on_one_page_only_and_kept_as_a_hash(
    ann: Person, store: Session
) -> None:
    made = send(ann, "/account/tokens", name="script", scopes=["read", "submit"], days="7")
    [secret] = re.findall(r"fq_[\w-]+", made.text)
    token = store.query(Token).one()

    assert made.status_code == 201
    assert secret.encode() not in bytes(token.secret_hash)
    assert secret not in page_of(ann, "/account")
    with ann.client.session_transaction() as session:
        assert secret not in str(dict(session))
    assert token.scopes == ["read", "submit"]
    assert token.expires_at is not None


@pytest.mark.parametrize(
    ("form", "where"),
    [
        ({"name": "", "scopes": "read"}, "name"),
        ({"name": "x"}, "scopes"),
        ({"name": "x", "scopes": "everything"}, "scopes"),
        ({"name": "x", "scopes": "read", "days": "0"}, "expires_at"),
        ({"name": "x", "scopes": "read", "days": "soon"}, "expires_at"),
        ({"name": "x", "scopes": "read", "days": "40000"}, "expires_at"),
        ({"name": "x", "scopes": "read", "days": "9" * 5000}, "expires_at"),
    ],
)
def test_a_token_that_cannot_be_made_is_told_why(
    ann: Person, store: Session, form: dict[str, str], where: str
) -> None:
    answer = send(ann, "/account/tokens", **form)

    assert answer.status_code == 422
    assert f'id="{where}-error"' in answer.text
    assert (where == "expires_at") == ("whole days, from 1 to 36,500." in answer.text)
    assert store.query(Token).count() == 0


def test_the_account_shows_limits_and_what_is_used_of_them(
    signed_in: MakePerson, store: Session
) -> None:
    ann = signed_in("ann", weight=2.5, cap_backlog=10, cap_memory_mb=2048)
    make_job(store, ann.user)
    make_job(store, ann.user, JobStatus.COMPLETED)
    store.commit()

    since = beginning_of_slice(clock.now())
    store.add(Received(since=since, owner_id=ann.user.id, machine_seconds=1000))
    store.commit()

    said = words_of(page_of(ann, "/account"))

    assert "Weight 2.5" in said
    assert re.search("Share of the last hour 2[567]% due 100%", said)
    assert "Share of the last day 1% due 100%" in said
    assert "Unfinished jobs 1 of 10" in said
    assert "Memory at a time 0 MB of 2 GB" in said
    assert "CPU at a time 0 no cap" in said


def test_the_account_shows_what_holds_whoever_has_set_it(
    signed_in: MakePerson, store: Session
) -> None:
    group = make_group(store, "night", weight=2, cap_memory_mb=512)
    ann, bob = (signed_in(name, group_id=group.id, cap_running_jobs=5) for name in ("ann", "bob"))
    caps = {"name": "few", "match": {"user": "ann"}, "effect": {"caps": {"running_jobs": 2}}}
    make_policy(store, rules=[caps])
    for owner in (ann, bob):
        make_job(store, owner.user, JobStatus.RUNNING)
    store.commit()

    said = words_of(page_of(ann, "/account"))

    assert "Weight 2 " in said
    assert "Running at a time 1 of 2" in said
    assert "Memory at a time, all of night 256 MB of 512 MB" in said


def test_the_workers_page_tells_what_each_worker_is_up_to(
    signed_in: MakePerson, store: Session
) -> None:
    olga = signed_in("olga", Role.OPERATOR)
    make_worker(store)
    make_worker(store, "silent@far", heartbeat_at=NOON)
    make_job(store, olga.user, JobStatus.RUNNING, job_id="busy")
    store.commit()

    said = words_of(page_of(olga, "/workers"))

    assert "Live workers 1" in said
    assert "CPU units 1 of 8" in said
    assert "worker1@test test, process 1 online" in said
    assert "silent@far test, process 1 silent" in said
    assert "busy" in said


def test_the_workers_page_leads_to_flower_where_there_is_one(
    app: Flask, signed_in: MakePerson, monkeypatch: pytest.MonkeyPatch
) -> None:
    olga, own = signed_in("olga", Role.OPERATOR), services_of(app)
    assert "Flower" not in page_of(olga, "/workers")

    known = replace(own.settings, flower_url="https://flower.example.org")
    monkeypatch.setitem(app.extensions, "fairq", replace(own, settings=known))

    assert '<a class="button" href="https://flower.example.org"' in page_of(olga, "/workers")


def test_the_workers_page_has_buttons_for_workers_that_are_up(
    signed_in: MakePerson, store: Session
) -> None:
    olga = signed_in("olga", Role.OPERATOR)
    make_worker(store, processes_min=8)
    make_worker(store, "silent@far", heartbeat_at=NOON)
    store.commit()

    page = page_of(olga, "/workers")
    assert f"Drain {WORKER}" in words_of(page)
    assert f"Resume {WORKER}" not in words_of(page)
    assert "Drain silent@far" not in words_of(page)
    assert len(re.findall(r"<button[^>]* disabled>(?:Grow|Shrink)", page)) == 2

    form = {"csrf_token": olga.csrf}
    olga.csrf = None
    refused = olga.ask("POST", f"/workers/{WORKER}/drain", headers=HTML)
    sent = olga.ask("POST", f"/workers/{WORKER}/drain", data=form, headers=HTML)

    assert (refused.status_code, sent.status_code, sent.location) == (403, 302, "/workers")
    said = words_of(page_of(olga, "/workers"))
    assert f"{WORKER} takes no new jobs; what it runs goes on." in said
    assert "process 1 draining" in said
    assert f"Resume {WORKER}" in said


def test_the_bell_tells_how_jobs_ended_lately(ann: Person, store: Session) -> None:
    for job_id, status, data in (
        ("one", JobStatus.COMPLETED, None),
        ("two", JobStatus.FAILED, {"error": "ValueError"}),
        ("three", JobStatus.CANCELLED, {"reason": CancelReason.BY_USER}),
    ):
        job = make_job(store, ann.user, status, job_id=job_id)
        store.add(
            JobEvent(
                job_id=job.id, owner_id=ann.user.id, at=NOON, verb="end", status=status,
                attempt=1, data=data,
            )
        )  # fmt: skip
    store.commit()

    items = re.findall(
        r'class="bell-item" href="([^"]+)".*?<strong>([^<]+)', page_of(ann), re.DOTALL
    )

    assert items == [("/jobs/two", "two failed"), ("/jobs/one", "one completed")]


def page_of_raw(person: Person, path: str) -> str:
    """Open a path as a server hands it over that knows how it was sent."""
    answer = person.client.get(path, headers=HTML, environ_overrides={"RAW_URI": path})
    assert answer.status_code in {200, 302}, answer.text
    return answer.text


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _folder(app: Flask) -> Path:
    return Path(app.root_path)


def _link(page: str, rel: str) -> str:
    return unescape(re.findall(rf'rel="{rel}" href="([^"]+)"', page)[0])


def _statements(engine: Engine, act: Callable[[], object]) -> int:
    """Return how many statements the application sends during *act*."""
    counted = 0

    def count(*_: object) -> None:
        nonlocal counted
        counted += 1

    event.listen(Engine, "before_cursor_execute", count)
    try:
        act()
    finally:
        event.remove(Engine, "before_cursor_execute", count)
    return counted
