"""What makes two errors alike, so that many failed jobs read as a few problems. Pure.

Alike are errors of one job type with the same kind, the same place in the code and messages that
differ only in what changes from job to job: numbers, ids, quoted values, paths.
"""

import hashlib
import re

LENGTH = 16
"""Hexadecimal digits of a fingerprint."""

_LONGEST_LOOKED_AT = 500

_VARYING = (
    re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.IGNORECASE),
    re.compile(r"\b(?:job_)?[0-9a-hjkmnp-tv-z]{26}\b", re.IGNORECASE),
    re.compile(r"\b0x[0-9a-f]+\b|\b[0-9a-f]{16,}\b", re.IGNORECASE),
    re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`"),
    re.compile(r"\w+://\S+|(?:/[\w.@%+-]+){2,}"),
    re.compile(r"\d+(?:[.,:]\d+)*"),
)
_FRAME = re.compile(r'^  File "([^"]+)", line \d+, in (.+)$', re.MULTILINE)


def fingerprint(
    job_type: str, error_type: str, message: str | None, traceback: str | None = None
) -> str:
    """Return what errors alike have in common, as hexadecimal digits."""
    parts = (job_type, error_type, _place(traceback), skeleton(message or ""))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:LENGTH]


def skeleton(message: str) -> str:
    """Return *message* without what changes from job to job."""
    said = message[:_LONGEST_LOOKED_AT]
    for varying in _VARYING:
        said = varying.sub("…", said)
    return " ".join(said.split())


def _place(traceback: str | None) -> str:
    """Return where the error was raised: file and function, since lines move with every change."""
    frames = _FRAME.findall(traceback or "")
    if not frames:
        return ""
    file, function = frames[-1]
    return f"{file.rpartition('/')[2]}:{function}"
