"""What an application holds beside its extensions."""

from dataclasses import dataclass

from flask import Flask, current_app
from redis import Redis

from scheduler.events import Announcer
from scheduler.settings import Settings
from webapp.desk import Desk


@dataclass(frozen=True, slots=True)
class Services:
    """The outside of one application."""

    settings: Settings
    redis: Redis
    announcer: Announcer
    desk: Desk


def services_of(app: Flask) -> Services:
    """Return the services *app* was made with."""
    found: Services = app.extensions["fairq"]
    return found


def services() -> Services:
    """Return the services of the current application."""
    return services_of(current_app)
