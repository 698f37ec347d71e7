"""The Flask extensions, made bare; ``factory`` binds them to an application."""

import logging
from datetime import timedelta
from typing import Any

from flask import Flask
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_login import LoginManager
from flask_socketio import SocketIO
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy.session import Session
from flask_wtf import CSRFProtect
from redis import RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from scheduler.database import is_outage, make_engine
from scheduler.models import Base
from webapp.services import services_of

log = logging.getLogger(__name__)

CONNECTIONS = 20
"""Database connections of one web process. Requests beyond wait for one."""

CONNECTION_PATIENCE = timedelta(seconds=5)
"""How long a request waits for a connection before it is told to come back later."""

STATEMENT_TIMEOUT = timedelta(seconds=10)
"""No page or answer is worth more of the database's time."""


class _Session(Session):
    """Ends quietly when the database has gone away: what was answered stands."""

    def close(self) -> None:
        """Give the connection back, however it is."""
        self.expunge_all()  # before the rollback, which would make what was read unreadable
        try:
            self.rollback()
        except DBAPIError as problem:
            if not is_outage(problem):
                raise
            log.warning("database went away after the answer")
        super().close()


class _Database(SQLAlchemy):
    """Connects as every other process of the installation does."""

    def _make_engine(self, _: str | None, __: dict[str, Any], app: Flask) -> Engine:
        return make_engine(
            services_of(app).settings,
            statement_timeout=STATEMENT_TIMEOUT,
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=CONNECTION_PATIENCE.total_seconds(),
        )


class _Limiter(Limiter):
    """Counts in this process while Redis is away."""

    def _check_request_limit(self, *given: Any, **named: Any) -> None:
        try:
            super()._check_request_limit(*given, **named)
        except RedisError:
            # Of several requests that find Redis away at once, the library lets only the first go
            # on; by now it counts here.
            super()._check_request_limit(*given, **named)


db = _Database(model_class=Base, session_options={"class_": _Session})
login = LoginManager()
csrf = CSRFProtect()
limiter = _Limiter(
    get_remote_address,
    strategy="moving-window",  # a fixed one lets twice as much through around its turn
    headers_enabled=False,
    in_memory_fallback_enabled=True,
)
socketio = SocketIO()
