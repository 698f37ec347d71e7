"""The ready kinds of jobs, one module each; importing this package registers them all."""

from tasks.kinds import data, http_request, mail, reports, simulate

__all__ = ["data", "http_request", "mail", "reports", "simulate"]
