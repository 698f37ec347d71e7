"""What people and programs see: pages, JSON endpoints, live events.

It asks the engine about jobs and decides nothing itself.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from scheduler.settings import Settings


def create_app(settings: "Settings | None" = None) -> "Flask":
    """Return the application; without *settings* the environment says. Raises SettingsInvalid."""
    # Not at the top: the server must patch sockets before anything that uses them is imported,
    # and importing ``webapp.__main__`` imports this first.
    from webapp import factory  # noqa: PLC0415 - see above

    return factory.create_app(settings)
