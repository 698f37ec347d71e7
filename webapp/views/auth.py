"""Signing in and out, and the choice of theme."""

from flask import (
    Blueprint,
    get_flashed_messages,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
)
from flask.typing import ResponseReturnValue
from flask_limiter import RateLimitExceeded

from webapp import access, sessions
from webapp.errors import AT_THE_DOOR, rate_limited, retry_after
from webapp.schemas.people import PASSWORD_LIMIT
from webapp.services import services
from webapp.views import frame

bp = Blueprint("auth", __name__)

_THEME_SECONDS = 365 * 86_400

_WRONG = "This username and password do not go together."
_TOO_MANY = "Too many attempts. Wait a minute before the next one."


@bp.get("/sign-in")
def sign_in() -> ResponseReturnValue:
    """Show the door; who is in already goes on."""
    target = frame.safe_target(request.args.get("next"))
    if access.caller() is not None:
        return redirect(target)
    told = map(str, get_flashed_messages(category_filter=[AT_THE_DOOR]))
    return _door(target, problem=" ".join(told))


def _name_tried() -> str:
    return request.form.get("username", "").strip()


@bp.post("/sign-in")
@access.limit_sign_in(_name_tried)
def try_password() -> ResponseReturnValue:
    """Open a session for the right password; never tell which half was wrong."""
    target = frame.safe_target(request.form.get("next"))
    password = request.form.get("password", "")
    fits = len(password) <= PASSWORD_LIMIT
    account = access.check_password(_name_tried(), password) if fits else None
    if account is None:
        return _door(target, username=_name_tried(), problem=_WRONG), 401
    access.open_session(account)
    return redirect(target)


@bp.errorhandler(RateLimitExceeded)
def too_many(error: RateLimitExceeded) -> ResponseReturnValue:
    """Say at the door that it stays shut for a while; other limits are told as elsewhere."""
    if request.endpoint != "auth.try_password":
        return rate_limited(error)
    target = frame.safe_target(request.form.get("next"))
    answer = _door(target, username=_name_tried(), problem=_TOO_MANY)
    return answer, 429, {"Retry-After": retry_after(error)}


@bp.post("/sign-out")
@frame.page
def sign_out() -> ResponseReturnValue:
    """End the session."""
    sessions.end()
    return redirect(url_for("auth.sign_in"))


@bp.post("/theme")
def set_theme() -> ResponseReturnValue:
    """Remember light, dark or the system's choice; where scripts are off this is the switch."""
    chosen = request.form.get("theme", "")
    answer = make_response(redirect(frame.safe_target(request.form.get("next"))))
    if chosen in frame.THEMES:
        answer.set_cookie(
            frame.THEME_COOKIE,
            chosen,
            max_age=_THEME_SECONDS,
            samesite="Lax",
            secure=services().settings.cookie_secure,
        )
    return answer


def _door(target: str, *, username: str = "", problem: str = "") -> str:
    return render_template("auth/sign_in.html", next=target, username=username, problem=problem)
