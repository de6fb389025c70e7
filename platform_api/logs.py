"""Logs of the API: one line per event, structured, with the request's id, and without secrets.

    2026-01-02T03:04:05.678901Z level=info event=sign_in logger=platform_api.identity.service request_id=… account_id=…

`event` is a stable word. Whatever is logged, by us or by a library, passes the same last steps: the request's facts are
added, secrets are removed (`redaction.py`), and one line is written to stderr, as key=value or as JSON. ERROR: someone
must act; WARNING: degraded, handled; INFO: business event; DEBUG: detail.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import msgspec
import structlog

from platform_api.redaction import redacted

__all__ = ["configure_logs"]

QUIET = ("httpx", "picows", "pgqueuer", "uvicorn.access")


def configure_logs(*, as_json: bool = False, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """For the whole process; later calls replace earlier ones."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    last: Any = structlog.processors.JSONRenderer(serializer=_json) if as_json else _key_value
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _without_secrets, last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in QUIET:  # a line for every request or job
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _without_secrets(_: Any, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {name: redacted(value, name) for name, value in fields.items()}


def _key_value(_: Any, __: str, fields: MutableMapping[str, Any]) -> str:
    head = [str(fields.pop("timestamp", "-")), f"level={fields.pop('level', '-')}"]
    event, exception = str(fields.pop("event", "")), fields.pop("exception", "")
    head.append(event if event.startswith("event=") else f"event={_value(event)}")
    line = " ".join([*head, *(f"{name}={_value(value)}" for name, value in fields.items())])
    return f"{line}\n{exception}" if exception else line


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else _json(value)
    return text if text and text.isprintable() and not any(c in text for c in ' "=') else _json(text)


def _json(value: Any, **_: Any) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()
