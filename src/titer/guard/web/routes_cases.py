"""The queue, one case, its images, and the decision on it."""

from __future__ import annotations

import functools
import threading
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, HTTPException, Path, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from markupsafe import Markup

from titer.core.errors import TiterError
from titer.guard.audit.events import Kind
from titer.guard.settings import ExplainerName
from titer.guard.web import cases, drawings, slices
from titer.guard.web.access import who
from titer.guard.web.site import Site

Number = Annotated[int, Path(ge=1, le=2**62)]
Index = Annotated[int, Path(ge=0, le=slices.MOST_FRAMES * 100)]
Choice = Annotated[str | None, Query(max_length=64)]
Action = Literal["accept", "override", "reject", "comment"]
EXPLAINED: dict[ExplainerName, str] = {"gradcam": "Grad-CAM", "shap": "SHAP"}
ACTIONS: dict[str, str] = {
    "accept": "The input is genuine: the result of the model goes out as it is.",
    "override": "The result of the model is wrong: it does not go out, your own label is kept in its place.",
    "reject": "The input is suspect: no result goes out.",
    "comment": "Leave a comment or a label; the case stays open.",
}


def router(site: Site) -> APIRouter:
    """Return the routes."""
    made = APIRouter(tags=["review"])
    _pages(made, site)
    _images(made, site)
    return made


def _pages(made: APIRouter, site: Site) -> None:
    context = site.context

    @made.get("/queue", dependencies=site.gate("case.read"), response_class=HTMLResponse)
    def queue(
        request: Request, route: Choice = None, modality: Choice = None, outcome: Choice = None, state: Choice = "held"
    ) -> Response:
        """Show which cases wait, the most urgent first."""
        wanted = cases.Filter(
            route=route or None, modality=modality or None, outcome=outcome or None, state=state or None
        )
        with context.engine.connect() as connection:
            lines, total = cases.queue(connection, wanted)
            choices = cases.choices(connection)
        site.note(request, Kind.QUERY, "E", {}, {"what": "queue", "lines": str(len(lines))})
        return site.page(request, "queue.html.j2", lines=lines, total=total, wanted=wanted, choices=choices)

    @made.get("/cases/{number}", dependencies=site.gate("case.read"), response_class=HTMLResponse)
    def case(request: Request, number: Number) -> Response:
        """Show one case."""
        return _shown(site, request, number)

    @made.post("/cases/{number}/decision", dependencies=site.gate("case.decide"), response_class=HTMLResponse)
    def decide(
        request: Request,
        number: Number,
        action: Annotated[Action, Form()],
        comment: Annotated[str, Form(max_length=4000)] = "",
        label: Annotated[str, Form(max_length=64)] = "",
    ) -> Response:
        """Accept, override, reject, or comment; whoever may not gets the reason."""
        me = who(request)
        _found(site, number)
        if action in ("override", "reject") and not comment.strip():
            return _shown(site, request, number, wrong=f"{action}: a comment must say why", status=400)
        if action == "override" and not label.strip():
            return _shown(site, request, number, wrong="override: give your own label", status=400)
        if action == "comment" and not (comment.strip() or label.strip()):
            return _shown(site, request, number, wrong="comment: write one, or give a label", status=400)
        try:
            site.decide(context, number, me.name, me.acting, action, comment.strip(), label.strip() or None)
        except (TiterError, PermissionError) as error:
            return _shown(site, request, number, wrong=str(error), status=409)
        with context.engine.connect() as connection:
            _, after = cases.neighbours(connection, number)
        return RedirectResponse(f"/cases/{number}" if action == "comment" or not after else f"/cases/{after}", 303)


def _shown(site: Site, request: Request, number: int, wrong: str = "", status: int = 200) -> Response:
    with site.context.engine.connect() as connection:
        try:
            found = cases.case(connection, number)
        except cases.NotThere as error:
            raise HTTPException(404, str(error)) from None
        before, after = cases.neighbours(connection, number)
    shown, trouble = _slices(found)
    patient = slices.patient(shown[0]) if shown else {}
    site.note(request, Kind.ACCESSED, "R", _what(found), {"what": "case", "case": str(number)})
    return site.page(
        request, "case.html.j2", status, case=found, slices=len(shown), trouble=trouble, patient=patient, before=before,
        after=after, wrong=wrong, actions=ACTIONS, first=found.first_person, bars=_bars(found), labels=_labels(found),
        result=_result(found), explainers=EXPLAINED, explainer=site.context.settings.judge.explainer,
    )  # fmt: skip


def _bars(found: cases.Case) -> list[tuple[str, Markup, float, float]]:
    """Return each detector's bar, score and threshold, those over their threshold first."""
    given = [(n, float(s["score"]), float(s["threshold"])) for n, s in found.verdict["scores"].items() if len(s) >= 2]
    given.sort(key=lambda one: (one[1] <= one[2], one[0]))
    return [(name, drawings.bar(score, threshold), score, threshold) for name, score, threshold in given]


def _result(found: cases.Case) -> dict[str, Any]:
    """Return the model's result for reading: a list with a value for each class becomes one line a class."""
    given, known = dict(found.verdict["result"] or {}), _labels(found)
    out: dict[str, Any] = {}
    for name, value in given.items():
        if name == "classes":
            continue
        if known and isinstance(value, list) and len(value) == len(known):
            out |= dict(zip(known, value, strict=True))
        else:
            out[name] = value
    return out


def _labels(found: cases.Case) -> list[str]:
    """Return the classes that the model knows, to choose from."""
    known = (found.verdict["result"] or {}).get("classes", [])
    return [str(one) for one in known] if isinstance(known, list) else []


def _images(made: APIRouter, site: Site) -> None:
    seen = _Seen()

    def noted(request: Request, found: cases.Case) -> None:
        """One audit row for the images that a session fetches of a case, not one for each slice of a scroll."""
        me = who(request)
        if seen.first((me.session or me.name, found.id)):
            site.note(request, Kind.ACCESSED, "R", _what(found), {"what": "images", "case": str(found.id)})

    @made.get(
        "/api/cases/{number}/slices/{index}",
        dependencies=site.gate("case.read"),
        response_class=Response,
        responses={200: {"content": {"application/octet-stream": {}}, "description": "Pixels, little-endian"}},
    )
    def pixels(
        request: Request, number: Number, index: Index, copy: Literal["original", "sanitized"] = "original"
    ) -> Response:
        """Return the pixels of a slice, raw; size, type, slope, window and orientation are headers (`Titer-...`)."""
        found = _found(site, number)
        shown, trouble = _slices(found)
        if index >= len(shown):
            raise HTTPException(404, trouble or f"there is no slice {index}: the case has {len(shown)}")
        noted(request, found)
        try:
            drawn = slices.picture(shown[index])
            drawn = slices.sanitized(drawn) if copy == "sanitized" else drawn
        except slices.Changed as error:
            site.note(request, Kind.SECURITY_ALERT, "R", _what(found), {"what": "a judged file was changed or is gone"})
            raise HTTPException(409, str(error)) from None
        except slices.NotShown as error:
            raise HTTPException(422, str(error)) from None
        return Response(drawn.pixels.tobytes(), media_type="application/octet-stream", headers=drawn.headers())

    @made.get("/api/cases/{number}/heatmaps/{index}", dependencies=site.gate("case.read"), response_class=FileResponse)
    def heatmap(request: Request, number: Number, index: Index, method: ExplainerName | None = None) -> Response:
        """Return the heat map of a slice, a PNG of its size; `method` is gradcam or shap, by default the setting's."""
        found = _found(site, number)
        noted(request, found)
        try:
            drawn = site.heatmap(site.context, number, index, *(() if method is None else (method,)))
            return FileResponse(drawn, media_type="image/png")
        except (TiterError, OSError, ImportError) as error:
            said = str(error) if isinstance(error, TiterError) else "there is no heat map of this case"
            raise HTTPException(404, said) from None

    @made.get("/api/cases/{number}", dependencies=site.gate("case.read"), response_class=JSONResponse)
    def case_data(request: Request, number: Number) -> dict[str, Any]:
        """Return a case as JSON: its verdict, scores, findings and decisions."""
        found = _found(site, number)
        noted(request, found)
        return {
            "id": found.id,
            "verdict": dict(found.verdict),
            "slices": len(_slices(found)[0]),
            "findings": [dict(one) for one in found.findings],
            "reviews": [dict(one) for one in found.reviews],
        }


def _found(site: Site, number: int) -> cases.Case:
    with site.context.engine.connect() as connection:
        try:
            return cases.case(connection, number)
        except cases.NotThere as error:
            raise HTTPException(404, str(error)) from None


def _what(found: cases.Case) -> dict[str, str]:
    return {"subject": str(found.verdict["subject"]), "digest": str(found.verdict["input_digest"])}


def _slices(found: cases.Case) -> tuple[list[slices.Slice], str]:
    """Return a case's slices in order, or none and why; the order of the same files is read once."""
    try:
        return _ordered(tuple((one["path"], one["digest"]) for one in found.objects)), ""
    except TiterError as error:
        return [], str(error)


@functools.lru_cache(maxsize=64)
def _ordered(files: tuple[tuple[str, str], ...]) -> list[slices.Slice]:
    return slices.ordered([{"path": path, "digest": digest} for path, digest in files])


class _Seen:
    """Remembers which session has fetched images of which case."""

    _MOST = 10_000

    def __init__(self) -> None:
        self._keys: set[tuple[str, int]] = set()
        self._lock = threading.Lock()

    def first(self, key: tuple[str, int]) -> bool:
        """Whether this is the first time; forgets all when it holds too many, which costs audit rows, not gaps."""
        with self._lock:
            if key in self._keys:
                return False
            if len(self._keys) >= self._MOST:
                self._keys.clear()
            self._keys.add(key)
            return True
