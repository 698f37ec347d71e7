"""The Dead letters page, and what other pages say of failed jobs and offer for them."""

import json
import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from sqlalchemy.orm import Session

from scheduler.models import Attempt, Job, JobEvent
from scheduler.states import JobStatus, Outcome, Role
from tests.factories import MINUTE, NOON, make_dependency, make_job, make_type
from tests.webapp.conftest import MakePerson, Person
from tests.webapp.test_pages import EVIL, HTML, Reader, page_of, send, words_of
from webapp import clearing, dead_letters
from webapp.views import frame, reads

S = JobStatus
HOUR = timedelta(hours=1)
SCHEMA = {"properties": {"rows": {"type": "integer"}}, "required": ["table"]}


@pytest.fixture
def ann(signed_in: MakePerson) -> Person:
    return signed_in("ann")


def add(store: Session, owner: Person, name: str, **columns: Any) -> Job:
    status = columns.pop("status", S.FAILED)
    job = make_job(store, owner.user, status, job_id=name, **columns)
    store.commit()
    return job


def look(store: Session, job: Job) -> Job:
    store.rollback()
    return store.get_one(Job, job.id, populate_existing=True)


def rows(page: str) -> list[str]:
    """Return what the rows of a list lead to, first to last."""
    return [unescape(url) for url in re.findall(r'<a[^>]* href="([^"]+)" data-row-link', page)]


def forms(page: str, action: str) -> list[dict[str, str]]:
    """Return what the forms of a page that lead to *action* would send."""
    form = rf'<form method="post" action="{re.escape(action)}".*?</form>'
    found = re.findall(form, page, re.DOTALL)
    named = r'<input type="hidden" name="([^"]+)" value="([^"]*)"'
    return [{name: unescape(value) for name, value in re.findall(named, one)} for one in found]


def count_told(page: str) -> str:
    told = re.search(r'id="letter-count" data-part>([^<]*)<', page)
    assert told
    return told[1]


def test_alike_failures_read_as_one_problem_and_lead_to_their_jobs(
    ann: Person, store: Session
) -> None:
    for number in range(3):
        add(
            store, ann, f"export{number}", type="export", error_type="ConnectionError",
            error_message=f"no answer from db{number}", error_fingerprint="aa",
            finished_at=NOON + number * HOUR,
        )  # fmt: skip
    add(store, ann, "single", finished_at=NOON - HOUR)

    page = page_of(ann, "/dead-letters")
    said = words_of(page)
    opened = page_of(ann, rows(page)[0])

    assert rows(page) == ["/dead-letters?fingerprint=aa", "/dead-letters?fingerprint=0123abcd"]
    assert "4 failed jobs" in said
    assert "ConnectionError no answer from db2 export last" in said
    assert "for example export2" in said
    assert "3 jobs Retry" in said
    assert "1 job Retry" in said
    assert rows(opened) == ["/jobs/export2", "/jobs/export1", "/jobs/export0"]
    assert "no answer from db0" in words_of(opened)
    assert "single" not in opened


def test_who_has_no_dead_letters_reads_what_they_are(ann: Person) -> None:
    said = words_of(page_of(ann, "/dead-letters"))

    assert "Nothing has failed for good" in said
    assert "Retry all" not in said
    assert "No dead letter matches" in words_of(page_of(ann, "/dead-letters?q=x"))
    assert "Nothing is left of this group" in words_of(page_of(ann, "/dead-letters?fingerprint=x"))
    assert count_told(page_of(ann)) == ""


def test_the_navigation_counts_dead_letters_as_far_as_it_is_worth(
    ann: Person, store: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame, "LETTERS_COUNTED", 2)
    told = []
    for number in range(3):
        add(store, ann, f"job{number}")
        told.append(count_told(page_of(ann, "/account")))

    assert told == ["1", "2", "2+"]


def test_only_operators_see_everybodys_and_whose_they_are(
    ann: Person, signed_in: MakePerson, store: Session
) -> None:
    bob, olga = signed_in("bob"), signed_in("olga", Role.OPERATOR)
    add(store, ann, "same")
    add(store, bob, "same", finished_at=NOON + HOUR)

    everybody = page_of(olga, "/dead-letters")
    group = page_of(olga, "/dead-letters?fingerprint=0123abcd")

    assert "ann, bob" in words_of(everybody)
    assert rows(group) == ["/jobs/same?owner=bob", "/jobs/same?owner=ann"]
    assert rows(page_of(olga, "/dead-letters?fingerprint=0123abcd&owner=ann")) == [
        "/jobs/same?owner=ann"
    ]
    assert "1 failed job." in words_of(page_of(ann, "/dead-letters"))
    assert "bob" not in page_of(ann, "/dead-letters?fingerprint=0123abcd")


def test_viewers_read_and_are_offered_nothing(signed_in: MakePerson, store: Session) -> None:
    vera = signed_in("vera", Role.VIEWER)
    add(store, vera, "veras")

    for path in ("/dead-letters", "/dead-letters?fingerprint=0123abcd", "/jobs/veras", "/"):
        page = page_of(vera, path)
        assert "veras" in page
        assert not re.search("Retry|Discard|/edit", page), path


def test_filters_narrow_the_page_and_everything_it_offers(ann: Person, store: Session) -> None:
    add(store, ann, "wanted", type="export", error_fingerprint="aa")
    add(store, ann, "other", error_fingerprint="bb")

    page = page_of(ann, "/dead-letters?type=export&q=want&failed_after=2026-01-01T00:00:00Z&owner=")

    assert rows(page) == [
        "/dead-letters?type=export&q=want&failed_after=2026-01-01T00%3A00%3A00Z&fingerprint=aa"
    ]
    assert 'href="/dead-letters?q=want&amp;failed_after' in page  # without the type
    sent = forms(page, "/dead-letters")
    assert len(sent) == 4
    for form in sent:
        assert (form["meant"], form["type"], form["q"]) == ("all that match", "export", "want")
        assert form["failed_after"] == "2026-01-01T00:00:00Z"
        assert form["failed_before"] == "2026-01-15T12:01:00.000001+00:00"
    assert [form.get("fingerprint") for form in sent] == [None, None, "aa", "aa"]


def test_the_forms_of_the_page_retry_and_discard_what_they_say(ann: Person, store: Session) -> None:
    kept = add(store, ann, "kept", error_fingerprint="bb")
    for number in range(3):
        add(store, ann, f"export{number}", type="export", error_fingerprint="aa")
    page = page_of(ann, "/dead-letters?type=export")
    retry, discard = forms(page, "/dead-letters")[2:]

    answer = send(ann, "/dead-letters", **retry)
    told = words_of(page_of(ann, answer.location))
    again = send(ann, "/dead-letters", **discard)

    assert answer.location == "/dead-letters?type=export"
    assert "3 jobs run again." in told
    assert "Nothing was left to do" in words_of(page_of(ann, again.location))
    assert look(store, kept).status == S.FAILED
    assert {job.status for job in store.query(Job).filter_by(type="export")} == {S.READY}


def test_what_fails_after_the_page_was_made_is_left_alone(ann: Person, store: Session) -> None:
    add(store, ann, "seen")
    overview = forms(page_of(ann, "/dead-letters"), "/dead-letters")
    group = forms(page_of(ann, "/dead-letters?fingerprint=0123abcd"), "/dead-letters")
    unseen = add(store, ann, "unseen", finished_at=NOON + 2 * MINUTE)

    for form in (*overview[1:], *group):
        send(ann, "/dead-letters", **form)

    left = look(store, unseen)
    assert (left.status, left.discarded_at) == (S.FAILED, None)
    assert rows(page_of(ann, "/dead-letters?fingerprint=0123abcd")) == ["/jobs/unseen"]


def test_one_job_is_discarded_and_the_others_of_its_group_stay(ann: Person, store: Session) -> None:
    one, two = add(store, ann, "one"), add(store, ann, "two", finished_at=NOON + HOUR)
    page = page_of(ann, "/dead-letters?fingerprint=0123abcd")
    [discard] = [form for form in forms(page, "/dead-letters") if form.get("job_id") == "one"]

    answer = send(ann, "/dead-letters", **discard)

    left = page_of(ann, answer.location)
    assert "one is discarded." in words_of(left)
    assert rows(left) == ["/jobs/two"]
    assert look(store, one).discarded_at is not None
    assert look(store, two).discarded_at is None


def test_a_request_that_leaves_some_behind_says_so(
    ann: Person, store: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clearing, "LIMIT", 2)
    for number in range(3):
        add(store, ann, f"job{number}")

    page = page_of(ann, "/dead-letters")
    send(ann, "/dead-letters", action="retry", meant="all that match")

    assert "2+ failed jobs" in words_of(page)
    assert "There are more" in page
    assert "2 jobs run again. More of them match" in words_of(page_of(ann, "/dead-letters"))


def test_a_form_that_does_not_say_what_it_means_does_nothing(ann: Person, store: Session) -> None:
    job = add(store, ann, "one")

    answers = [
        send(ann, "/dead-letters", action="discard"),
        send(ann, "/dead-letters", action="discard", type="simulate"),
        send(ann, "/dead-letters", job_id="one"),
        send(ann, "/dead-letters", job_id="one", action="bury"),
        send(ann, "/dead-letters", meant="all that match", failed_after="soon"),
        send(ann, "/dead-letters", action="retry", job_id="missing"),
    ]

    assert [answer.status_code for answer in answers] == [400] * 4 + [422, 404]
    left = look(store, job)
    assert (left.status, left.discarded_at) == (S.FAILED, None)


def test_a_form_leads_nowhere_else(ann: Person, store: Session) -> None:
    add(store, ann, "one")
    add(store, ann, "two")

    for path, form in (
        ("/dead-letters", {"job_id": "one", "action": "retry"}),
        ("/jobs/two/retry", {}),
    ):
        assert send(ann, path, next="//evil.example", **form).location == "/"


def test_groups_and_jobs_come_page_by_page(ann: Person, store: Session) -> None:
    for number in range(5):
        at = NOON + number * HOUR
        add(store, ann, f"job{number}", error_fingerprint=f"{number % 3}", finished_at=at)

    def walk(path: str) -> list[str]:
        page = page_of(ann, path)
        further = re.search(r'rel="next" href="([^"]+)"', page)
        return rows(page) + (walk(unescape(further[1]) + "&limit=2") if further else [])

    shown = walk("/dead-letters?limit=2")
    assert [url.partition("fingerprint=")[2] for url in shown] == ["1", "0", "2"]
    assert walk("/dead-letters?fingerprint=1&limit=1") == ["/jobs/job4", "/jobs/job1"]
    assert "To the first page" in page_of(
        ann, f"/dead-letters?cursor={dead_letters.Place(NOON - HOUR, 1).written()}"
    )


def test_the_page_says_how_far_back_its_groups_reach(
    ann: Person, store: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "GROUPED_LIMIT", 2)
    for number in range(3):
        add(store, ann, f"job{number}")

    page = page_of(ann, "/dead-letters")
    assert "the latest 2 failures" in words_of(page)
    assert re.findall(r'data-confirm="(\w+ .*?)\?', page)[2:] == [
        "Run all failed jobs of this kind again",
        "Discard all failed jobs of this kind",
    ]


# Other pages


def test_the_table_offers_a_retry_where_one_is_possible(ann: Person, store: Session) -> None:
    for status in S:
        add(store, ann, status, status=status)

    page = page_of(ann)

    assert set(re.findall(r'title="Retry (\w+)"', page)) == {S.FAILED, S.CANCELLED}
    [form] = forms(page, "/jobs/failed/retry")
    assert form["next"] == "/?"


def test_a_retry_by_form_says_what_becomes_of_the_job_and_leads_back(
    ann: Person, store: Session
) -> None:
    add(store, ann, "ready")
    parent, child = add(store, ann, "parent"), add(store, ann, "child", status=S.CANCELLED)
    make_dependency(store, child, parent)
    add(store, ann, "done", status=S.COMPLETED)
    store.commit()

    places = [
        send(ann, "/jobs/ready/retry", next="/?status=failed").location,
        send(ann, "/jobs/child/retry").location,
        send(ann, "/jobs/done/retry").location,
    ]

    said = words_of(page_of(ann, "/account"))
    assert places == ["/?status=failed", "/jobs/child", "/jobs/done"]
    assert "ready runs again as soon as its turn comes." in said
    assert "child runs again when what it waits for is done." in said
    assert "done is completed: there is nothing to retry." in said


def test_a_retry_by_form_needs_its_csrf_token(ann: Person, store: Session) -> None:
    job = add(store, ann, "one")
    ann.csrf = None

    answer = ann.ask("POST", "/jobs/one/retry", data={}, headers=HTML)

    assert answer.status_code == 403
    assert look(store, job).status == S.FAILED


def test_the_page_of_a_failed_job_leads_to_its_group(
    ann: Person, store: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(store, ann, "alone", error_fingerprint="aa")
    for name in ("one", "two", "three"):
        add(store, ann, name)
    add(store, ann, "away", discarded_at=NOON)

    alone, one, away = (page_of(ann, f"/jobs/{name}") for name in ("alone", "one", "away"))

    assert 'href="/dead-letters?fingerprint=0123abcd"' in one
    assert "dead letters , with 2 others whose error is alike." in words_of(one)
    assert "others" not in words_of(alone)
    assert "/dead-letters?fingerprint" not in away
    assert "Discarded" in words_of(away)
    assert [len(forms(page, "/dead-letters")) for page in (alone, one, away)] == [1, 1, 0]
    assert all("Retry" in words_of(page) for page in (alone, one, away))
    monkeypatch.setattr(reads, "COUNT_LIMIT", 1)
    assert "with 1+ others" in words_of(page_of(ann, "/jobs/one"))


def test_a_job_that_was_retried_counts_its_attempts_anew(ann: Person, store: Session) -> None:
    add(store, ann, "runs", status=S.RUNNING, attempt=4, attempts_forgiven=3)
    add(store, ann, "failed", attempt=5, attempts_forgiven=3)

    runs, failed = (words_of(page_of(ann, f"/jobs/{name}")) for name in ("runs", "failed"))

    assert "Attempt 4 on worker1@test · 1 of 3 counted" in runs
    assert "Attempts 1 of 3 used" in runs
    assert "After 2 of 3 attempts." in failed


@pytest.mark.parametrize(
    ("outcome", "says"),
    [
        (Outcome.FAILED, "The last one failed: ValueError no such row"),
        (Outcome.SNOOZED, "The last one was put off by the job itself, and is not counted."),
    ],
)
def test_a_job_that_waits_for_its_next_attempt_says_when_it_is_due(
    ann: Person, store: Session, outcome: Outcome, says: str
) -> None:
    job = add(
        store, ann, "waits", status=S.RETRYING, error_type="ValueError", error_message="no such row"
    )
    store.query(Attempt).filter_by(job_id=job.id).update({"outcome": outcome})
    store.add(
        JobEvent(
            job_id=job.id, owner_id=ann.user.id, at=NOON, verb="snooze", status=S.RETRYING,
            attempt=1, data={"due_at": (NOON + MINUTE).isoformat()},
        )
    )  # fmt: skip
    store.commit()

    page = page_of(ann, "/jobs/waits")

    assert "Next attempt <time" in page_of(ann)
    assert says in words_of(page)
    assert f'Next attempt <time datetime="{(NOON + MINUTE):%Y-%m-%dT%H:%M:%SZ}"' in page
    assert ("Put off, not counted" in page) == (outcome == Outcome.SNOOZED)


def test_memory_is_told_as_what_an_attempt_took_beyond_its_process(
    ann: Person, store: Session
) -> None:
    job = add(store, ann, "took", status=S.COMPLETED)
    store.query(Attempt).filter_by(job_id=job.id).update({"peak_memory_mb": 96.4})
    store.commit()

    said = words_of(page_of(ann, "/jobs/took"))

    assert "Memory 96 MB of 128 MB What an attempt takes beyond what its process held" in said
    assert "One that holds more than it asked for is stopped." in said
    assert "More than it asked for" not in said


# Editing the payload


def test_a_payload_is_edited_and_the_job_runs_again_with_it(ann: Person, store: Session) -> None:
    make_type(store, "export", payload_schema=SCHEMA)
    job = add(store, ann, "a/b", type="export", payload={"table": "orders", "rows": 3})
    path = "/jobs/a%2Fb/edit"

    page = page_of(ann, path)
    answer = send(ann, path, payload='{"table": "customers"}')

    assert "&#34;table&#34;: &#34;orders&#34;" in page
    assert "ValueError" in page
    assert answer.location == "/jobs/a%2Fb"
    again = look(store, job)
    assert (again.status, again.payload) == (S.READY, {"table": "customers"})
    assert "a/b runs again" in words_of(page_of(ann, "/account"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"table": ', "This is not JSON:"),
        ("[1]", "This has to be a JSON object"),
        ("", "'table' is a required property"),
        ('{"table": NaN}', "This is not JSON:"),
        ('{"table": "\\u0000"}', "null character"),
        ('{"table": 1, "rows": "many"}', "rows: 'many' is not of type 'integer'"),
    ],
)
def test_what_is_wrong_with_a_payload_stands_at_its_field_and_the_text_stays(
    ann: Person, store: Session, text: str, says: str
) -> None:
    make_type(store, "export", payload_schema=SCHEMA)
    job = add(store, ann, "one", type="export", payload={"table": "orders"})

    answer = send(ann, "/jobs/one/edit", payload=text)

    assert answer.status_code == 422
    assert says in words_of(answer.text)
    assert answer.text.count('id="payload-error"') == 1
    assert 'aria-describedby="payload-hint payload-error"' in answer.text
    assert unescape(answer.text.partition("data-json")[2]).count(text) >= 1
    assert look(store, job).status == S.FAILED


def test_a_job_that_the_server_made_is_retried_as_it_is(ann: Person, store: Session) -> None:
    job = add(store, ann, "errand", type="bulk", payload={"action": "cancel"})
    add(store, ann, "other")

    assert "/jobs/errand/edit" not in page_of(ann, "/jobs/errand")
    assert "/jobs/other/edit" in page_of(ann, "/jobs/other")
    assert ann.get("/jobs/errand/edit").status_code == 422
    assert send(ann, "/jobs/errand/edit", payload='{"action": "retry"}').status_code == 422
    assert (look(store, job).status, look(store, job).payload) == (S.FAILED, {"action": "cancel"})


def test_a_large_payload_goes_out_and_comes_back_at_its_own_size(
    ann: Person, store: Session
) -> None:
    payload = {"table": '"' * 200_000}  # written as in an address each would take six bytes
    job, path = add(store, ann, "one", payload=payload), "/jobs/one/edit"
    [kind] = re.findall(r'<form class="submit-form"[^>]* enctype="([^"]+)"', page_of(ann, path))

    form = {"csrf_token": ann.csrf, "payload": json.dumps(payload)}
    answer = ann.ask("POST", path, data=form, content_type=kind, headers=HTML)

    assert answer.status_code == 302
    assert look(store, job).payload == payload


def test_only_what_can_be_retried_can_be_edited(ann: Person, store: Session) -> None:
    add(store, ann, "done", status=S.COMPLETED)
    job = add(store, ann, "runs", status=S.RUNNING)
    add(store, ann, "dropped", status=S.CANCELLED)

    assert "The job is completed." in words_of(page_of(ann, "/jobs/done/edit", 409))
    assert "Edit and retry" in page_of(ann, "/jobs/dropped/edit")
    assert send(ann, "/jobs/runs/edit", payload="{}").location == "/jobs/runs"
    assert "runs is running: there is nothing to retry." in words_of(page_of(ann))
    assert look(store, job).status == S.RUNNING


def test_nothing_a_person_wrote_becomes_markup_and_nothing_is_inline(
    ann: Person, store: Session
) -> None:
    job = add(
        store, ann, EVIL, error_type=EVIL, error_message=EVIL, type=EVIL, description=EVIL,
        tags=[EVIL[:99]], payload={EVIL: EVIL}, error_fingerprint="aa",
    )  # fmt: skip
    add(store, ann, f"{EVIL}2", error_message=EVIL, error_fingerprint="aa")
    edit = f"{frame_path(job)}/edit"

    for path in ("/dead-letters", "/dead-letters?fingerprint=aa", edit, f"/dead-letters?q={EVIL}"):
        page = page_of(ann, path)
        reader = Reader()
        reader.feed(page)
        assert "<script>alert" not in page, path
        assert "<img src=x" not in page, path
        assert reader.inline == [], path


def frame_path(job: Job) -> str:
    return "/jobs/" + "".join(f"%{byte:02X}" for byte in job.job_id.encode())
