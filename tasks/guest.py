"""The tasks of another Celery application, which keeps its own configuration and broker."""

from typing import Any

from celery import current_app
from celery.app.utils import find_app

from scheduler.errors import SettingsInvalid


def tasks_of(name: str) -> dict[str, Any]:
    """Return the tasks by name of the application that ``celery -A`` finds under *name*.

    Whatever it includes or discovers is loaded, as by a worker of its own. Raises SettingsInvalid.
    """
    host = current_app._get_current_object()  # noqa: SLF001 - what the proxy stands for
    try:
        guest = find_app(name)
        guest.loader.import_default_modules()
        guest.finalize()
        return dict(guest.tasks)
    except Exception as problem:
        message = f"FAIRQ_CELERY_APP {name!r} cannot be loaded: {problem!r}"
        raise SettingsInvalid([message]) from problem
    finally:
        host.set_current()  # an application makes itself current when it is made
