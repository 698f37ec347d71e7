"""``python -m webapp``: the web server, pages, JSON and live events in one process."""
# ruff: noqa: E402 - patching comes before everything that opens sockets or starts threads

import gc

gc.disable()  # until it serves: what is imported stays, and looking at it is a tenth of the start

from gevent import monkey

monkey.patch_all()

import sys

from scheduler.errors import SettingsInvalid
from scheduler.log import configure_logging
from scheduler.settings import Settings
from webapp.factory import create_app
from webapp.server import serve


def main() -> int:
    """Serve until told to stop; return the exit code."""
    try:
        settings = Settings.from_env()
    except SettingsInvalid as invalid:
        print(*invalid.problems, sep="\n", file=sys.stderr)  # noqa: T201 - a command line speaks
        return 2
    configure_logging(settings.log_level)
    app = create_app(settings)
    gc.freeze()
    gc.enable()
    serve(app, settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
