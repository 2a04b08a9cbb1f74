"""What the pages share: the gate, the templates, and the two things that the judge does for them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from titer.guard.audit import chain
from titer.guard.audit.events import Kind, audit_event
from titer.guard.context import Context
from titer.guard.web.access import Gate, address
from titer.guard.web.measures import Measures
from titer.guard.web.sessions import Account

FOLDER = Path(__file__).parent
Decide = Callable[..., Any]
"""judge.review.decide(context, verdict_id, account, role, action, comment, label)"""
Heatmap = Callable[..., Path]
"""judge.explain.heatmap(context, verdict_id, index, method)"""


def _lazily(module: str, name: str) -> Callable[..., Any]:
    def call(*given: Any, **named: Any) -> Any:
        return getattr(import_module(module), name)(*given, **named)

    return call


judged = _lazily("titer.guard.judge.review", "decide")
explained = _lazily("titer.guard.judge.explain", "heatmap")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One guard's pages."""

    context: Context
    gate: Gate
    measures: Measures
    decide: Decide = judged
    heatmap: Heatmap = explained
    templates: Environment = field(default_factory=lambda: _templates())

    def page(self, request: Request, name: str, status: int = 200, **values: Any) -> HTMLResponse:
        """Return a page; `me` is who asks, None before the login."""
        me: Account | None = getattr(request.state, "account", None)
        text = self.templates.get_template(name).render(
            me=me, now=self.context.clock(), path=request.url.path, oidc=self.context.settings.web.oidc, **values
        )
        return HTMLResponse(text, status)

    def note(
        self, request: Request, kind: Kind, action: str, what: Mapping[str, str], detail: Mapping[str, str]
    ) -> None:
        """Write an audit row about what the account of a request did."""
        at = self.context.clock()
        me: Account | None = getattr(request.state, "account", None)
        event = audit_event(
            kind, action=action, agent=me.name if me else "unknown", at=at, what=what, detail=detail,
            network=address(request),
        )  # fmt: skip
        self.context.journal.write(lambda connection: chain.append(connection, event, at))


def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(FOLDER / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    made.filters.update(age=_age, mib=_mib, moment=_moment, evidence=_evidence)
    return made


def _age(seconds: float) -> str:
    """Return a duration as people say it: 40 s, 12 min, 3 h, 2 d."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _mib(size: float) -> str:
    """Return a size in MiB as people say it: 3 MiB, 1.5 GiB, 2.0 TiB."""
    for factor, unit in ((1 << 20, "TiB"), (1 << 10, "GiB")):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return "less than 1 MiB" if 0 < size < 1 else f"{size:.0f} MiB"


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _evidence(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
