"""Structured logs without patient data: what is not on the list of harmless keys does not reach the log at all."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog

HARMLESS: Final = frozenset(
    {
        "event", "level", "timestamp", "logger", "component", "route", "method", "status", "milliseconds", "account",
        "role", "destination", "outcome", "state", "verdict_id", "count", "bytes", "port", "rule", "detector", "layer",
        "kind", "attempts", "error", "ae_title", "digest", "modality",
    }
)  # fmt: skip
"""Keys that may be logged; a UID is not among them, as it leads to a patient: log the verdict's id or a digest."""
_WORD = re.compile(r"[a-z][a-z'-]*[,.:;]?|\[hidden\]|[-=:;,.()]|\d{1,3}")
_TOKEN = re.compile(r"[A-Za-z0-9_./:@{}-]{1,64}")
_SUSPICIOUS = re.compile(r"\^|\d{6,}|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\d+(\.\d+){4,}")
_DIGEST = re.compile(r"[0-9a-f]{12,64}")
HIDDEN: Final = "[hidden]"


def scrub(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep harmless keys with harmless values; an exception leaves its type only, as its message may quote a file."""
    error = _error_type(fields)
    kept = {name: _value(name, value) for name, value in fields.items() if name in HARMLESS and value is not None}
    dropped = sorted(set(fields) - HARMLESS - {"exc_info", "_record", "_from_structlog"})
    if error:
        kept["error"] = error
    if dropped:
        kept["dropped"] = len(dropped)
    return kept


def configure(stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Send the logs of structlog and of the standard library, scrubbed, as one JSON object a line."""
    before: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Any] = [scrub, structlog.processors.JSONRenderer(sort_keys=True)]
    formatter = structlog.stdlib.ProcessorFormatter(foreign_pre_chain=before, processors=last)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger("titer.guard")
    for logger in (root, logging.getLogger("uvicorn.error"), logging.getLogger("uvicorn")):
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    structlog.configure(
        processors=[*before, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _value(name: str, value: Any) -> Any:
    if isinstance(value, bool | int | float):
        return value
    text = str(value)
    if name == "event":
        return " ".join(word if _WORD.fullmatch(word) else HIDDEN for word in text.split())
    if name == "timestamp" or (name == "digest" and _DIGEST.fullmatch(text)):
        return text
    return text if _TOKEN.fullmatch(text) and not _SUSPICIOUS.search(text) else HIDDEN


def _error_type(fields: MutableMapping[str, Any]) -> str | None:
    given = fields.get("exc_info")
    if given is True:
        given = sys.exc_info()
    if isinstance(given, tuple):
        given = given[1]
    return type(given).__name__ if isinstance(given, BaseException) else None
