"""What every page has around it: who reads it, its theme, notifications, links to jobs."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from flask import g, request, url_for
from flask.sansio.blueprints import BlueprintSetupState
from flask.typing import ResponseReturnValue

from scheduler import clock
from scheduler.states import Role
from webapp import access, dead_letters, live_messages
from webapp.access import Account
from webapp.errors import to_the_door
from webapp.extensions import db
from webapp.views import reads

View = TypeVar("View", bound=Callable[..., Any])

THEMES = ("light", "dark", "system")
THEME_COOKIE = "theme"

LETTERS_COUNTED = 99
"""How far dead letters are counted beside their entry in the navigation of every page."""


@dataclass(frozen=True, slots=True)
class Note:
    """One line behind the bell."""

    seq: int
    status: str
    title: str
    message: str
    url: str
    at: str


def reader() -> Account:
    """Return who reads this page, and note how far the page is up to date.

    Called before the page reads anything, so that a change meanwhile is told again rather than
    missed.
    """
    account = access.require()
    if "last_seq" not in g:
        g.last_seq = reads.last_seq(db.session(), None if account.sees_everybody else account.id)
    return account


def page(view: View) -> View:
    """Send who is not signed in to the door."""

    @functools.wraps(view)
    def guarded(**values: Any) -> ResponseReturnValue:
        if access.caller() is None:
            return to_the_door()
        answer: ResponseReturnValue = view(**values)
        return answer

    return guarded  # type: ignore[return-value]  # the wrapper takes what the view takes


def theme() -> str:
    """Return the theme the reader has chosen; rendered by the server, so it never flashes."""
    chosen = request.cookies.get(THEME_COOKIE, "")
    return chosen if chosen in THEMES else "system"


def job_url(job: Mapping[str, Any] | Any, action: str = "") -> str:
    """Return where a job is; the owner is named where the reader is somebody else."""
    job_id, owner = _names(job)
    return _url_of("jobs", job_id, owner, action)


def schedule_url(schedule: Mapping[str, Any]) -> str:
    """Return where a schedule is, likewise."""
    return _url_of("schedules", schedule["name"], schedule["owner"])


def _url_of(kind: str, name: str, owner: str | None, action: str = "") -> str:
    path = f"{request.script_root}/{kind}/{quote(name, safe='')}{action and '/' + action}"
    account = access.caller()
    if owner is None or account is None or owner == account.username:
        return path
    return f"{path}?{urlencode({'owner': owner})}"


def safe_target(target: str | None) -> str:
    """Return *target* if it is a path on this site, else the front page."""
    front = url_for("jobs.index")
    if not target or not target.startswith("/") or target[1:2] in {"/", "\\"}:
        return front
    parts = urlsplit(target)
    clean = target.isprintable() and "\\" not in target
    return target if clean and not parts.scheme and not parts.netloc else front


def furnish(state: BlueprintSetupState) -> None:
    """Give the templates of an application what the frame is made of, macros included."""
    state.app.jinja_env.globals.update(
        me=access.caller,
        theme=theme,
        now=_now,
        last_seq=_last_seq,
        recent_notifications=_notes,
        dead_letter_count=_dead_letter_count,
        is_operator=lambda: _has_role(Role.OPERATOR),
        may_submit=lambda: _has_role(Role.USER),
        job_url=job_url,
        schedule_url=schedule_url,
    )


def _names(job: Mapping[str, Any] | Any) -> tuple[str, str | None]:
    if isinstance(job, Mapping):
        return job["job_id"], job.get("owner")
    return job.job_id, job.owner


def _last_seq() -> int:
    seq: int = g.get("last_seq", 0)
    return seq


def _now() -> datetime:
    """Return one instant for the whole page."""
    if "page_now" not in g:
        g.page_now = clock.now()
    now: datetime = g.page_now
    return now


def _has_role(role: Role) -> bool:
    account = access.caller()
    return account is not None and account.has_role(role)


def _notes() -> list[Note]:
    account = access.caller()
    if account is None:
        return []
    notes = [_note(finish) for finish in reads.recent_finishes(db.session(), account.id)]
    return [note for note in notes if note is not None]


def _dead_letter_count() -> str:
    """Say how many dead letters the reader may see; nothing if there are none."""
    account = access.caller()
    if account is None:
        return ""
    visible, anything = access.visible_jobs(account), dead_letters.Filter()
    number = dead_letters.count(db.session(), visible, anything, limit=LETTERS_COUNTED + 1)
    if number > LETTERS_COUNTED:
        return f"{LETTERS_COUNTED}+"
    return str(number or "")


def _note(finish: reads.Finish) -> Note | None:
    told = live_messages.notification(
        {
            "job_id": finish.job_id,
            "seq": finish.seq,
            "verb": finish.verb,
            "status": finish.status,
            "data": finish.data,
            "at": finish.at,
        }
    )
    if told is None:
        return None
    url = job_url({"job_id": finish.job_id})
    return Note(finish.seq, told["status"], told["title"], told["message"], url, told["at"])
