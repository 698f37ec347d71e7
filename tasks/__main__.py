"""``python -m tasks register``: make the ready kinds of jobs known before a worker has started."""

import sys
from collections.abc import Sequence

from sqlalchemy.orm import Session

import tasks.kinds
from scheduler.database import make_engine
from scheduler.errors import SettingsInvalid
from scheduler.settings import Settings
from scheduler.store.fleet import register_types
from tasks.catalogue import CATALOGUE
from tasks.register import specs_of_kinds

_USAGE = "usage: python -m tasks register"


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    if list(arguments) != ["register"]:
        return _refuse(_USAGE)
    try:
        settings = Settings.from_env()
    except SettingsInvalid as problem:
        return _refuse("\n".join(problem.problems))
    engine = make_engine(settings)
    with Session(engine) as session, session.begin():
        register_types(session, specs_of_kinds(CATALOGUE))
    engine.dispose()
    sys.stdout.write(f"registered {len(CATALOGUE)} job types of {tasks.kinds.__name__}\n")
    return 0


def _refuse(reason: str) -> int:
    sys.stderr.write(f"{reason}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
