"""``bin/up``: everything on this machine, from services to sign-in."""

import http.client
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from psycopg import OperationalError

from local import programs
from local.home import Home, is_free
from local.prepared import has_newest_tables, has_user
from local.process import StartFailed
from local.services import embed, start_services
from local.supervisor import Log, StopAsked, Supervisor
from scheduler.errors import SettingsInvalid
from scheduler.settings import Settings, missing_services

_BAD_SETTINGS = 2
_CANNOT_START = 1
_PATIENCE = timedelta(seconds=60)
_PASSWORD = "admin_password"  # noqa: S105 - the name of the file that holds it
_TO_TAKE_PART = ("DATABASE_URL", "REDIS_URL", "FAIRQ_HOME", "FAIRQ_SECRET_KEY")
"""What has to be the same in every process of an installation."""

_TO_BE_EMBEDDED = {
    "DATABASE_URL": "postgresql://embedded/fairq",
    "REDIS_URL": "redis://embedded/0",
    "FAIRQ_SECRET_KEY": "made when the directory for it is there",
}
"""Stands for what is made later, so that everything else can be checked first."""


def up(*, demo: bool) -> int:
    """Run everything until somebody asks to stop. Return the exit code."""
    environment = programs.inherited_environment()
    try:
        settings = Settings.from_env({**_TO_BE_EMBEDDED, **_given(environment)})
    except SettingsInvalid as invalid:
        return _complain(invalid.problems, _BAD_SETTINGS)
    try:
        with Home(settings.home) as home:
            _check_port(settings)
            _Installation(home, environment, demo=demo).run()
    except StartFailed as problem:
        return _complain([str(problem)], _CANNOT_START)
    return 0


def _given(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what is set; an empty variable counts as unset."""
    return {name: value for name, value in environment.items() if value}


def _complain(problems: tuple[str, ...] | list[str], code: int) -> int:
    for problem in problems:
        print(f"fairq: {problem}", file=sys.stderr)
    return code


def _check_port(settings: Settings) -> None:
    try:
        free = is_free(settings.port, settings.host)
    except OSError as problem:
        raise StartFailed(f"FAIRQ_HOST {settings.host} cannot be used: {problem}") from problem
    if not free:
        raise StartFailed(
            f"port {settings.port} of {settings.host} is in use; set FAIRQ_PORT to another"
        )


@dataclass(frozen=True, slots=True)
class _SignIn:
    """What the person at the terminal needs to get in."""

    username: str
    password: str | None
    """Only when it was made here and nobody has seen it."""


class _Installation:
    """The services and processes of one ``bin/up``."""

    def __init__(self, home: Home, environment: Mapping[str, str], *, demo: bool) -> None:
        self._home = home
        self._demo = demo
        self._embedded = embed(home, missing_services(environment))
        self._environment = {
            **environment,
            "FAIRQ_HOME": str(home.path),
            "FAIRQ_SECRET_KEY": environment.get("FAIRQ_SECRET_KEY") or home.secret("secret_key"),
            **{name: service.url for name, service in self._embedded.items()},
        }
        self._settings = Settings.from_env(self._environment)
        home.leave_environment({name: self._environment[name] for name in _TO_TAKE_PART})
        self._log = Log(sys.stdout)
        self._supervisor = Supervisor(self._log)

    def run(self) -> None:
        """Start everything, say where it is, and keep it running until asked to stop."""
        self._supervisor.listen()
        try:
            start_services(self._supervisor, self._embedded)
            self._migrate()
            self._start_processes()
            sign_in = self._prepare()
            if self._demo:
                self._supervisor.start(programs.demo(self._environment))
            self._welcome(sign_in)
            self._supervisor.run()
        except StopAsked:
            self._say("stopped before everything was started")
        finally:
            self._supervisor.stop()

    def _migrate(self) -> None:
        try:
            is_done = has_newest_tables(self._settings.database_url)
        except OperationalError as problem:
            raise StartFailed(f"DATABASE_URL cannot be used: {problem}") from problem
        if not is_done:
            self._supervisor.complete(programs.migrate(self._environment))

    def _start_processes(self) -> None:
        self._supervisor.start(programs.web(self._environment))
        self._supervisor.start(programs.scheduler(self._environment))
        self._supervisor.start(programs.worker(self._environment))

    def _prepare(self) -> _SignIn:
        """Write the catalogue and make the first administrator, unless that is done."""
        username = self._settings.admin_username
        if has_user(self._settings.database_url, username):
            # What changed in the catalogue since then, every worker writes when it starts.
            # A start that was stopped early may have made the account and told nobody.
            is_unseen = self._home.has_secret(_PASSWORD)
            return _SignIn(username, self._home.secret(_PASSWORD) if is_unseen else None)
        chosen = self._settings.admin_password
        password = chosen or self._home.secret(_PASSWORD)
        environment = {**self._environment, "FAIRQ_ADMIN_PASSWORD": password}
        self._supervisor.complete(
            programs.register(environment), programs.ensure_admin(environment)
        )
        return _SignIn(username, None if chosen else password)

    def _welcome(self, sign_in: _SignIn) -> None:
        host, port = _reachable(self._settings.host), self._settings.port
        self._supervisor.wait_until(
            lambda: _is_ready(host, port), what="the web server", within=_PATIENCE
        )
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        self._home.announce(url)
        self._say(f"ready at {url}")
        if sign_in.password:
            self._say(f"sign in as {sign_in.username} with the password {sign_in.password}")
            self._say("this password is not shown again; Ctrl-C stops everything")
        else:
            self._say(f"sign in as {sign_in.username}; Ctrl-C stops everything")
        self._home.forget_secret(_PASSWORD)

    def _say(self, line: str) -> None:
        self._log.write("fairq", line)


def _reachable(host: str) -> str:
    """Return the address under which a server that listens on *host* is reached from here."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound


def _is_ready(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
