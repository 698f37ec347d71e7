"""One log format for every process: time, level, logger, message, then the data of the line."""

import logging
import logging.config

_PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class DataFormatter(logging.Formatter):
    """Writes a line's data behind its message as ``name=value``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        data = " ".join(
            f"{name}={value!r}" if " " in str(value) else f"{name}={value}"
            for name, value in record.__dict__.items()
            if name not in _PLAIN and not name.startswith("_")
        )
        return f"{super().format(record)} {data}".rstrip()


def configure_logging(level: str) -> None:
    """Send everything from *level* on to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(DataFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    keep_addresses_out()


def keep_addresses_out() -> None:
    """Keep the addresses that are called out of the log: they may hold passwords of their owners.

    httpx tells each of them, and httpcore what is sent there.
    """
    for caller in ("httpx", "httpcore"):
        logging.getLogger(caller).setLevel(logging.WARNING)
