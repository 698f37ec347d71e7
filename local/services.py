"""The services this machine runs for itself when the environment names none."""

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Protocol

from local.home import Home
from local.postgres import Postgres
from local.process import Program
from local.supervisor import Supervisor
from local.valkey import Valkey

_PATIENCE = timedelta(seconds=60)


class Service(Protocol):
    """A service that can be run here."""

    @property
    def url(self) -> str:
        """Its address, password included."""

    def program(self) -> Program:
        """Return what runs it."""

    def is_ready(self) -> bool:
        """Tell whether it lets us in."""


def embed(home: Home, variables: Collection[str], *, throwaway: bool = False) -> dict[str, Service]:
    """Return the services to run in *home*, by the variables that are to hold their addresses."""
    services: dict[str, Service] = {}
    if "DATABASE_URL" in variables:
        services["DATABASE_URL"] = Postgres(
            home.path / "postgres",
            port=home.port("postgres"),
            password=home.secret("postgres_password"),
            throwaway=throwaway,
        )
    if "REDIS_URL" in variables:
        services["REDIS_URL"] = Valkey(
            home.path / "valkey",
            port=home.port("valkey"),
            password=home.secret("valkey_password"),
        )
    return services


def start_services(supervisor: Supervisor, services: Mapping[str, Service]) -> None:
    """Start *services* side by side, and return when they let us in."""
    for service in services.values():
        supervisor.start(service.program())
    for name, service in services.items():
        supervisor.wait_until(service.is_ready, what=f"the service for {name}", within=_PATIENCE)
        if isinstance(service, Postgres):
            service.ensure_database()
