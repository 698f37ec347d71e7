"""The ready kinds of jobs, one module each; importing this package registers them all."""

from tasks.kinds import bulk, data, http_request, mail, reports, simulate

__all__ = ["bulk", "data", "http_request", "mail", "reports", "simulate"]
