"""Putting an application together."""

from datetime import timedelta

from flask import Flask, request
from werkzeug.middleware.proxy_fix import ProxyFix

from scheduler.database import open_redis
from scheduler.events import Announcer
from scheduler.settings import Settings
from webapp import access, cli, errors, headers, health, live, presentation, sessions, urls
from webapp.api import (
    audit,
    callbacks,
    dead_letters,
    docs,
    fleet,
    jobs,
    people,
    policy,
    pull,
    schedules,
    simplequeue,
    streams,
    tokens,
)
from webapp.desk import Desk
from webapp.extensions import csrf, db, limiter
from webapp.services import Services
from webapp.streams import home
from webapp.views import account as account_views
from webapp.views import auth as auth_views
from webapp.views import dead_letters as dead_letters_views
from webapp.views import jobs as jobs_views
from webapp.views import schedules as schedules_views
from webapp.views import workers as workers_views

RESOURCES = (
    jobs.bp,
    callbacks.bp,
    streams.bp,
    pull.bp,
    simplequeue.bp,
    dead_letters.bp,
    schedules.bp,
    tokens.bp,
    people.bp,
    policy.bp,
    fleet.bp,
    audit.bp,
    health.bp,
    docs.bp,
)
PAGES = (
    auth_views.bp,
    jobs_views.bp,
    dead_letters_views.bp,
    schedules_views.bp,
    account_views.bp,
    workers_views.bp,
)

SESSION_LIFETIME = timedelta(days=7)

REDIS_PATIENCE = timedelta(seconds=2)
"""A broker that hangs must not hold up a submission, which does not need it."""

FORM_LIMIT = 4 * 1024 * 1024
"""Bytes of anything that is not a declared JSON body; a form shows the largest payload indented."""


def create_app(settings: Settings | None = None) -> Flask:
    """Return the application; it connects to nothing before it is asked something.

    Without *settings* the environment says. Raises SettingsInvalid.
    """
    settings = settings or Settings.from_env()
    app = Flask(__name__, template_folder="../templates", static_folder="static")
    app.config.from_mapping(_config(settings))
    redis = open_redis(settings, socket_timeout=REDIS_PATIENCE.total_seconds())
    app.extensions["fairq"] = Services(settings, redis, Announcer(redis), Desk())
    _believe_proxies(app, settings.proxies)
    for part in (urls, headers, errors, db, access, csrf, limiter, health, presentation):
        part.init_app(app)
    app.before_request(_guard_pages)
    for blueprint in (*RESOURCES, *PAGES):
        app.register_blueprint(blueprint)
    home.init_app(app)
    live.init_app(app, settings)
    cli.init_app(app)
    return app


def _believe_proxies(app: Flask, count: int) -> None:
    """Take the address of a request from that many proxies, which have it from each other."""
    if count:
        believing = ProxyFix(app.wsgi_app, x_for=count, x_proto=0, x_host=0)
        app.wsgi_app = believing  # type: ignore[method-assign]  # Flask's documented way to add middleware


def _config(settings: Settings) -> dict[str, object]:
    return {
        "SECRET_KEY": settings.secret_key,
        "SQLALCHEMY_DATABASE_URI": settings.database_url,
        "SESSION_COOKIE_NAME": "fairq_session",
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "SESSION_COOKIE_SECURE": settings.cookie_secure,
        "PERMANENT_SESSION_LIFETIME": SESSION_LIFETIME,
        "SESSION_REFRESH_EACH_REQUEST": False,  # sessions.renew does it
        "PROVIDE_AUTOMATIC_OPTIONS": False,
        "MAX_CONTENT_LENGTH": FORM_LIMIT,
        "MAX_FORM_MEMORY_SIZE": FORM_LIMIT,
        # Whoever is signed in at all may use the token of that sign-in.
        "WTF_CSRF_TIME_LIMIT": None,
        # Declared routes check for themselves, after they know who asks; forms in _guard_pages.
        "WTF_CSRF_CHECK_DEFAULT": False,
        "RATELIMIT_STORAGE_URI": settings.redis_url,
        "RATELIMIT_STORAGE_OPTIONS": {
            "socket_connect_timeout": REDIS_PATIENCE.total_seconds(),
            "socket_timeout": REDIS_PATIENCE.total_seconds(),
        },
        "RATELIMIT_KEY_PREFIX": "fairq:limit",
    }


def _guard_pages() -> None:
    """Let pages take sessions only, and check the CSRF token of every form, signing in included.

    A page asks for no scope, so a token that has few must not reach it. Requests of whoever is
    signed in are counted, and let their session last on.
    """
    if request.blueprint in {page.name for page in PAGES}:
        access.take_session()
        csrf.protect()
        if access.caller() is not None:
            access.count_request()
            sessions.renew()
