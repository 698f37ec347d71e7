"""The pages of schedules: the list, one with its last jobs, and what their forms do."""

import re
from datetime import datetime, timedelta
from html import unescape
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from scheduler import clock
from scheduler.models import Job, JobType, Schedule
from scheduler.states import CatchUp, JobStatus, Overlap, Role
from tests.factories import MINUTE, NOON, make_job, make_schedule, make_type
from tests.webapp.conftest import MakePerson, Person
from tests.webapp.test_pages import EVIL, Reader, page_of, send, words_of
from webapp import schedules

S = JobStatus
NEW = {
    "name": "nightly",
    "cron": "30 2 * * *",
    "timezone": "Europe/Berlin",
    "overlap": "replace",
    "catch_up": "all",
    "template": '{"type": "simulate", "tags": ["x"]}',
}


@pytest.fixture
def ann(signed_in: MakePerson) -> Person:
    return signed_in("ann")


def add(store: Session, owner: Person, name: str = "nightly", **columns: Any) -> Schedule:
    schedule = make_schedule(store, owner.user, name, **columns)
    store.commit()
    return schedule


def kept(store: Session) -> list[Schedule]:
    store.rollback()
    wanted = select(Schedule).order_by(Schedule.id).execution_options(populate_existing=True)
    return list(store.scalars(wanted))


def rows(page: str) -> list[str]:
    return [unescape(url) for url in re.findall(r'<a[^>]* href="([^"]+)" data-row-link', page)]


def value_of(page: str, control: str) -> str:
    found = re.search(rf'<input[^>]* name="{control}" value="([^"]*)"', page)
    assert found
    return unescape(found[1])


def test_the_list_says_when_what_and_what_came_of_it(ann: Person, store: Session) -> None:
    add(store, ann, "often", every_seconds=90, paused=True)
    add(
        store, ann, cron="30 2 * * MON-FRI", timezone="Europe/Berlin",
        last_job_id="nightly@1", last_run_at=NOON, last_error_code="backlog_full",
        last_error="no room", last_error_at=NOON,
    )  # fmt: skip

    page = page_of(ann, "/schedules")
    said = words_of(page)

    assert rows(page) == ["/schedules/nightly", "/schedules/often"]
    assert "At 02:30 on Monday through Friday by the clock of Europe/Berlin" in said
    assert "Every 90 seconds paused simulate would be next in" in said
    assert 'href="/jobs/nightly%401"' in page
    assert "no room" in said
    assert said.count("Run now") == 2
    assert said.count("Resume often") == said.count("Pause nightly") == 1


def test_the_pages_tell_scripts_until_when_they_hold(ann: Person, store: Session) -> None:
    add(store, ann, "often", every_seconds=90, paused=True)
    add(store, ann)

    [tick] = re.findall(r'data-next="([^"]+)"', page_of(ann, "/schedules"))
    assert clock.now() < datetime.fromisoformat(tick) <= clock.now() + MINUTE
    assert "data-next=" in page_of(ann, "/schedules/nightly")
    assert "data-next=" not in page_of(ann, "/schedules/often")


def test_a_list_without_schedules_says_what_they_are(ann: Person) -> None:
    assert "A schedule makes a job at every tick" in words_of(page_of(ann, "/schedules"))


def test_a_long_list_has_pages(ann: Person, store: Session) -> None:
    for number in range(3):
        add(store, ann, f"s{number}")

    first = page_of(ann, "/schedules?limit=2")
    [more] = re.findall(r'rel="next" href="([^"]+)"', first)
    second = page_of(ann, unescape(more))

    assert rows(first) == ["/schedules/s2", "/schedules/s1"]
    assert rows(second) == ["/schedules/s0"]
    assert "First page" in words_of(second)


def test_operators_see_whose_they_are_and_follow_to_the_right_one(
    ann: Person, signed_in: MakePerson, store: Session
) -> None:
    bob, olga = signed_in("bob"), signed_in("olga", Role.OPERATOR)
    add(store, ann)
    add(store, bob)

    links = rows(page_of(olga, "/schedules"))
    answer = send(olga, links[1], action="pause")

    assert links == ["/schedules/nightly?owner=bob", "/schedules/nightly?owner=ann"]
    assert answer.location == "/schedules/nightly?owner=ann"
    assert [(one.owner_id, one.paused) for one in kept(store)] == [
        (ann.user.id, True),
        (bob.user.id, False),
    ]
    assert rows(page_of(ann, "/schedules")) == ["/schedules/nightly"]


def test_one_schedule_tells_its_next_ticks_and_its_last_jobs(ann: Person, store: Session) -> None:
    add(store, ann, "a/b", skipped=3, last_skipped_at=NOON)
    for number in range(12):
        status = S.COMPLETED if number % 2 else S.FAILED
        make_job(store, ann.user, status, job_id=f"a/b@{number}", schedule="a/b")
    make_job(store, ann.user, S.READY, job_id="by-hand")
    store.commit()

    page = page_of(ann, "/schedules/a%2Fb")

    told = re.findall(r'href="/jobs/a%2Fb%40(\d+)"', page)
    assert told == [str(number) for number in range(11, 1, -1)]
    assert len(re.findall(r'data-time="full"', page)) == 5
    assert "3 skipped because a job was unfinished" in words_of(page)
    assert "by-hand" not in page


def test_what_an_owner_writes_stays_text(ann: Person, store: Session) -> None:
    add(store, ann, EVIL, template={"description": EVIL}, last_error=EVIL, last_error_at=NOON)
    link = rows(page_of(ann, "/schedules"))[0]

    for path in ("/schedules", link, "/new-schedule"):
        page = page_of(ann, path)
        reader = Reader()
        reader.feed(page)
        assert reader.inline == [], path
        assert EVIL not in page


def test_a_viewer_reads_and_finds_no_buttons(signed_in: MakePerson, store: Session) -> None:
    vera = signed_in("vera", Role.VIEWER)
    add(store, vera)

    for path in ("/schedules", "/schedules/nightly"):
        said = words_of(page_of(vera, path))
        assert "nightly" in said
        assert "Run now" not in said
        assert "New schedule" not in said
        assert "Save" not in said


# Making and changing


def test_the_form_starts_with_a_job_that_can_be_made(ann: Person, store: Session) -> None:
    make_type(store, "a first", payload_schema={"type": "object", "required": ["action"]})
    make_type(store, "b second", payload_schema={"type": "object"})
    store.commit()

    assert "&#34;type&#34;: &#34;b second&#34;" in page_of(ann, "/new-schedule")


def test_the_form_is_not_shown_before_there_is_a_type(ann: Person, store: Session) -> None:
    store.query(JobType).delete()
    make_type(store, "bulk")
    store.commit()

    page = page_of(ann, "/new-schedule")

    assert "No worker has been here yet" in words_of(page)
    assert "data-schedule-form" not in page


def test_a_schedule_is_made_by_form(ann: Person, store: Session) -> None:
    page = page_of(ann, "/new-schedule")

    answer = send(ann, "/new-schedule", **NEW)

    assert "&#34;type&#34;: &#34;simulate&#34;" in page
    assert answer.location == "/schedules/nightly"
    [made] = kept(store)
    assert (made.owner_id, made.name, made.cron, made.every_seconds) == (
        ann.user.id, "nightly", "30 2 * * *", None,
    )  # fmt: skip
    assert (made.timezone, made.overlap, made.catch_up, made.paused) == (
        "Europe/Berlin", Overlap.REPLACE, CatchUp.ALL, False,
    )  # fmt: skip
    assert made.template == {"type": "simulate", "tags": ["x"]}
    assert "nightly is made" in words_of(page_of(ann, answer.location))


def test_seconds_in_the_place_of_a_line(ann: Person, store: Session) -> None:
    send(ann, "/new-schedule", **NEW | {"cron": "", "every_seconds": "90"})

    assert [(one.cron, one.every_seconds) for one in kept(store)] == [(None, 90)]


WRONG = [
    ({"name": ""}, "name"),
    ({"name": "taken"}, "name"),
    ({"cron": "61 * * * *"}, "cron"),
    ({"cron": "0 0 30 2 *"}, "cron"),
    ({"cron": ""}, "every_seconds"),
    ({"every_seconds": "5"}, "every_seconds"),
    ({"cron": "", "every_seconds": "often"}, "every_seconds"),
    ({"cron": "", "every_seconds": "9" * 9999}, "every_seconds"),
    ({"timezone": "Mars/Olympus"}, "timezone"),
    ({"overlap": "both"}, "overlap"),
    ({"catch_up": "some"}, "catch_up"),
    ({"template": "{"}, "template"),
    ({"template": "[]"}, "template"),
    ({"template": '{"type": "unheard-of"}'}, "template"),
    ({"template": '{"type": "simulate", "priority": "urgent"}'}, "template"),
]


@pytest.mark.parametrize(("change", "control"), WRONG)
def test_what_is_wrong_with_a_new_one_stands_at_its_field(
    ann: Person, store: Session, change: dict[str, str], control: str
) -> None:
    add(store, ann, "taken")

    answer = send(ann, "/new-schedule", **NEW | change)

    assert answer.status_code == 422
    assert set(re.findall(r'id="(\w+)-error"', answer.text)) == {control}
    assert value_of(answer.text, "name") == (NEW | change)["name"]
    assert [one.name for one in kept(store)] == ["taken"]


def test_too_many_are_refused_above_the_form(
    ann: Person, store: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "LIMIT", 0)

    answer = send(ann, "/new-schedule", **NEW)

    assert answer.status_code == 422
    assert "delete one that is not needed" in words_of(answer.text)


def test_a_schedule_is_changed_by_form(ann: Person, store: Session) -> None:
    add(store, ann, cron="0 0 * * *", paused=True)
    form = NEW | {"name": "other", "action": "save", "cron": "", "every_seconds": "90"}

    answer = send(ann, "/schedules/nightly", **form)

    assert answer.location == "/schedules/nightly"
    [changed] = kept(store)
    assert (changed.name, changed.cron, changed.every_seconds) == ("nightly", None, 90)
    assert (changed.overlap, changed.catch_up, changed.paused) == ("replace", "all", True)
    assert changed.template == {"type": "simulate", "tags": ["x"]}


def test_saving_what_stood_there_changes_nothing(ann: Person, store: Session) -> None:
    add(store, ann, cron="0 0 * * *", timezone="Asia/Tokyo", next_at=NOON + timedelta(hours=3))
    page = page_of(ann, "/schedules/nightly")
    text = re.search(r"<textarea[^>]*>(.*?)</textarea>", page, re.DOTALL)
    assert text
    chosen = re.findall(r'<option value="(\w+)" selected', page)
    form = {name: value_of(page, name) for name in ("cron", "every_seconds", "timezone")}
    form |= dict(zip(("overlap", "catch_up"), chosen, strict=True))
    columns = ("cron", "every_seconds", "timezone", "overlap", "catch_up", "template", "next_at")

    [before] = [[getattr(one, name) for name in columns] for one in kept(store)]
    send(ann, "/schedules/nightly", action="save", template=unescape(text[1]), **form)

    assert [[getattr(one, name) for name in columns] for one in kept(store)] == [before]


@pytest.mark.parametrize(("change", "control"), WRONG[2:])
def test_what_is_wrong_with_a_change_stands_at_its_field(
    ann: Person, store: Session, change: dict[str, str], control: str
) -> None:
    add(store, ann, cron="0 0 * * *")

    answer = send(ann, "/schedules/nightly", **NEW | {"action": "save"} | change)

    assert answer.status_code == 422
    assert set(re.findall(r'id="(\w+)-error"', answer.text)) == {control}
    assert [(one.cron, one.timezone) for one in kept(store)] == [("0 0 * * *", "UTC")]


# Buttons


def test_buttons_pause_and_resume(ann: Person, store: Session) -> None:
    add(store, ann)

    paused = send(ann, "/schedules/nightly", action="pause", next="/schedules?limit=2")
    was_paused = kept(store)[0].paused
    send(ann, "/schedules/nightly", action="resume")

    assert paused.location == "/schedules?limit=2"
    assert was_paused
    assert not kept(store)[0].paused


def test_a_button_runs_it_now(ann: Person, store: Session) -> None:
    add(store, ann, paused=True)

    answer = send(ann, "/schedules/nightly", action="run")

    [job] = store.scalars(select(Job))
    assert job.job_id.startswith("nightly@manual_")
    assert answer.location == "/schedules/nightly"
    said = words_of(page_of(ann, answer.location))
    assert "nightly runs now" in said
    assert job.job_id in said


def test_a_button_that_is_pressed_twice_runs_it_once(ann: Person, store: Session) -> None:
    add(store, ann, "hourly")
    add(store, ann)
    key = value_of(page_of(ann, "/schedules"), "once")

    for name in ("nightly", "nightly", "hourly"):
        send(ann, f"/schedules/{name}", action="run", once=key)

    names = [job.job_id.partition("@")[0] for job in store.scalars(select(Job).order_by(Job.id))]
    assert names == ["nightly", "hourly"]
    assert "nightly was run by the same button before" in words_of(page_of(ann, "/schedules"))


@pytest.mark.parametrize(
    ("columns", "action", "why"),
    [
        ({"template": {"type": "unheard-of"}}, "run", "no worker has registered"),
        ({"timezone": "Mars/Olympus", "paused": True}, "resume", "must be the name of a time zone"),
    ],
)
def test_a_button_that_is_refused_says_why(
    ann: Person, store: Session, columns: dict[str, Any], action: str, why: str
) -> None:
    add(store, ann, **columns)
    before = kept(store)[0].paused

    answer = send(ann, "/schedules/nightly", action=action)

    said = words_of(page_of(ann, answer.location))
    assert "nightly stays as it is" in said
    assert why in said
    assert kept(store)[0].paused == before
    assert store.scalars(select(Job)).all() == []


def test_a_deleted_one_is_gone_and_leads_to_the_list(ann: Person, store: Session) -> None:
    add(store, ann)

    answer = send(ann, "/schedules/nightly", action="delete")

    assert kept(store) == []
    assert answer.location == "/schedules"
    assert "nightly is deleted" in words_of(page_of(ann, answer.location))


def test_a_form_that_says_nothing_does_nothing(ann: Person, store: Session) -> None:
    add(store, ann)

    assert send(ann, "/schedules/nightly", action="explode").status_code == 400
    assert len(kept(store)) == 1


def test_a_job_leads_to_its_schedule(ann: Person, store: Session) -> None:
    make_job(store, ann.user, S.READY, job_id="nightly@1", schedule="nightly")
    store.commit()

    assert 'href="/schedules/nightly"' in page_of(ann, "/jobs/nightly%401")
