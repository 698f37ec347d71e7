"""The Flask extensions, made bare; ``factory`` binds them to an application."""

from datetime import timedelta
from typing import Any

from flask import Flask
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_login import LoginManager
from flask_socketio import SocketIO
from flask_sqlalchemy import SQLAlchemy
from flask_wtf import CSRFProtect
from sqlalchemy import Engine

from scheduler.database import make_engine
from scheduler.models import Base
from webapp.services import services_of

CONNECTIONS = 20
"""Database connections of one web process. Requests beyond wait for one."""

CONNECTION_PATIENCE = timedelta(seconds=5)
"""How long a request waits for a connection before it is told to come back later."""

STATEMENT_TIMEOUT = timedelta(seconds=10)
"""No page or answer is worth more of the database's time."""


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


db = _Database(model_class=Base)
login = LoginManager()
csrf = CSRFProtect()
limiter = Limiter(
    get_remote_address,
    strategy="moving-window",  # a fixed one lets twice as much through around its turn
    headers_enabled=False,
    in_memory_fallback_enabled=True,
)
socketio = SocketIO()
