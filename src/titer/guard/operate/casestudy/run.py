"""The case study itself: bare model, guard, layer after layer, each sent the same images clean and attacked."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from titer.core.model import Model
from titer.core.plugins import make_explainer
from titer.core.randomness import generator
from titer.engine.saliency import cosine
from titer.guard.judge.inputs import image_rows
from titer.guard.judge.models import load
from titer.guard.operate.casestudy.attacker import struck
from titer.guard.operate.casestudy.files import Sent, files
from titer.guard.operate.casestudy.hospital import MODEL, Guard, Seen, archived
from titer.guard.operate.casestudy.measure import Reading, figures, latency, reviewed
from titer.guard.operate.casestudy.models import Cohort, cohort, trained, write_bundle
from titer.guard.operate.casestudy.plan import ADAPTIVE, READER, STAGES, STRIKES, Settings, Stage, Strike, check
from titer.guard.operate.casestudy.report import write
from titer.guard.operate.casestudy.timing import Timed, timed
from titer.guard.operate.orthanc import Orthanc
from titer.guard.operate.studies import send

CLEAN = "clean"
_PROBES = 20
_TIMED = 60
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What all stages share."""

    settings: Settings
    cohort: Cohort
    models: Mapping[str, Model]
    archive: Orthanc
    say: Say
    truths: tuple[int, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.cohort.data.classes


def casestudy(settings: Settings, say: Say) -> Path:
    """Run the case study, and return the path of its report; `results.json` stands beside it.

    Raises:
        SpecError: a setting, a program or data that are missing: before anything runs.
    """
    check(settings)
    torch.set_num_threads(settings.workers)
    people = cohort(settings)
    began = time.monotonic()
    settings.folder.mkdir(parents=True, exist_ok=True)
    say(f"training on {len(people.training.train)} images (kept for the next time)")
    models = trained(people, settings)
    with Orthanc(settings.folder / "archive") as archive:
        truths = tuple(int(one) for one in people.test.y)
        study = Study(settings=settings, cohort=people, models=models, archive=archive, say=say, truths=truths)
        rows = [_bare(study)]
        for stage in STAGES:
            rows += _staged(study, stage)
    _time(study, rows)
    results = _results(study, rows, time.monotonic() - began)
    report = settings.folder / "report"
    report.mkdir()
    (report / "results.json").write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return write(report / "index.html", results)


def _bare(study: Study) -> dict[str, Any]:
    """Stage 0: clean images straight to the archive; the model reads what the archive holds."""
    study.say("stage 0: bare model, no guard")
    sent = files(study.cohort.test.x.round(), "bare", study.settings.seed)
    folder = study.settings.folder / "bare"
    for start in range(0, len(sent), _PROBES):
        part = {one.object_ + ".dcm": one.content for one in sent[start : start + _PROBES]}
        send(part, folder / "sent", study.archive.address, study.archive.ae_title)
    write_bundle(folder / "bundle", STAGES[0], study.models, study.cohort, study.settings)
    loaded = load(folder / "bundle")
    readings, seconds = [], []
    for one, truth in zip(sent, study.truths, strict=True):
        content = study.archive.file(one.object_)
        began = time.perf_counter()
        with torch.no_grad():
            logits = loaded.model.logits(image_rows(content, loaded.pinned.bundle.input, 1)[0])
        seconds.append(time.perf_counter() - began)
        readings.append(Reading(truth=truth, said=int(logits.argmax())))
    size = _size(folder / "bundle")
    return {
        "name": "bare model, no guard",
        "measured": "images read back from the archive",
        "conditions": {CLEAN: figures(readings)},
        "judging_ms": latency(seconds),
        "memory_mib": {"guard": None, "worker": None},
        "size_bytes": size,
    }


def _staged(study: Study, stage: Stage) -> list[dict[str, Any]]:
    """Run one guard, and return its row; behind the monitors those of review and masking as well."""
    study.say(f"stage {STAGES.index(stage) + 1}: {stage.name}")
    folder = _folder(study, stage)
    pairs = (study.models, study.cohort, study.settings)
    guard = Guard(folder, stage.name, stage.layers, study.archive, lambda path: write_bundle(path, stage, *pairs))
    strikes = [*STRIKES, *([ADAPTIVE] if stage.monitors else [])]
    images = {CLEAN: study.cohort.test.x.round()}
    images |= {one.label: _struck(study, stage, guard.bundle, one) for one in strikes}
    before = archived(study.archive, "SR")
    with guard:
        probes = files(images[CLEAN][:_PROBES], f"{stage.name} probe", study.settings.seed)
        # The first one waits for what is imported and loaded once.
        times = [one.seconds for one in guard.send_one_by_one(probes)[1:] if one.seconds is not None]
        seen = {label: guard.send(_files(study, stage, label, x)) for label, x in images.items()}
        memory = guard.memory()
        guard.drained()
        results = archived(study.archive, "SR") - before
        row = _row(study, stage, seen, images)
        row |= {"latency_ms": latency(times), "memory_mib": memory, "size_bytes": _size(guard.bundle)}
        row |= {"results_in_archive": results}
        if not stage.monitors:
            return [row]
        truths = [study.classes[one] for one in study.truths]
        overrides = sum(guard.review(found, truths) for found in seen.values())
        guard.drained()
        reviews = {"overrides": overrides, "results_in_archive": archived(study.archive, "SR") - before}
    return [row, *_reviewed(study, seen, reviews), _masked(study, seen, images)]


def _time(study: Study, rows: Sequence[dict[str, Any]]) -> None:
    """Add to each stage's row what judging takes, all stages asked in turn."""
    study.say("timing")
    folder = study.settings.folder
    paths = sorted((folder / "bare" / "sent").iterdir())[:_TIMED]
    stages = [
        Timed(
            bundle=_folder(study, stage) / "models" / MODEL,
            checks="checks" in stage.layers,
            detect="detectors" in stage.layers,
        )
        for stage in STAGES
    ]
    named = {row["name"]: row for row in rows}
    for stage, seconds in zip(STAGES, timed(stages, paths), strict=True):
        named[stage.name]["judging_ms"] = latency(seconds)


def _folder(study: Study, stage: Stage) -> Path:
    return study.settings.folder / f"stage-{STAGES.index(stage) + 1}"


def _struck(study: Study, stage: Stage, bundle: Path, strike: Strike) -> Tensor:
    return struck(study.models[stage.model], bundle, study.cohort, strike, study.settings.seed)


def _files(study: Study, stage: Stage, label: str, images: Tensor) -> list[Sent]:
    return files(images, f"{stage.name} {label}", study.settings.seed)


def _readings(study: Study, seen: Sequence[Seen]) -> list[Reading]:
    places = {name: place for place, name in enumerate(study.classes)}
    return [
        Reading(truth=truth, said=None if one.said is None else places[one.said], flagged=one.outcome != "PASS")
        for one, truth in zip(seen, study.truths, strict=True)
    ]


def _row(
    study: Study, stage: Stage, seen: Mapping[str, Sequence[Seen]], images: Mapping[str, Tensor]
) -> dict[str, Any]:
    model = study.models[stage.model]
    return {
        "name": stage.name,
        "measured": "verdicts in the guard's database",
        "conditions": {label: figures(_readings(study, found)) for label, found in seen.items()},
        "rules": {label: _rules(found) for label, found in seen.items()},
        "saliency_drift": _drift(model, images, study.settings.seed),
    }


def _rules(seen: Sequence[Seen]) -> dict[str, int]:
    names = [name for one in seen for name in one.rules]
    return {name: names.count(name) for name in sorted(set(names))}


def _drift(model: Model, images: Mapping[str, Tensor], seed: int) -> dict[str, float]:
    """Return the mean of 1 - the cosine of Grad-CAM maps, of each clean image and its attacked form.

    Each map is for the class that the model says of that very image.
    """
    explain, rng = make_explainer("gradcam"), generator(seed, "explained")
    with torch.no_grad():
        said = {label: model.logits(x).argmax(1) for label, x in images.items()}
    maps = {label: explain(model, x, said[label], rng=rng) for label, x in images.items()}
    return {label: float((1 - cosine(maps[CLEAN], one)).mean()) for label, one in maps.items() if label != CLEAN}


def _reviewed(study: Study, seen: Mapping[str, Sequence[Seen]], reviews: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a reader who is always right, as decided in the guard, and of one who is not."""
    made = []
    for skill, name in ((1.0, "+ review, reader always right"), (READER, f"+ review, reader right {READER:.0%}")):
        conditions = {
            label: figures(_read(study, _readings(study, found), label, skill)) for label, found in seen.items()
        }
        how = "decided in the guard" if skill == 1.0 else "computed from the same verdicts"
        made.append({"name": name, "measured": how, "conditions": conditions})
    made[0] |= reviews
    return made


def _read(study: Study, readings: Sequence[Reading], label: str, skill: float) -> list[Reading]:
    return reviewed(readings, len(study.classes), skill=skill, seed=study.settings.seed, condition=label)


def _masked(study: Study, seen: Mapping[str, Sequence[Seen]], images: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the row of the masked model, whose head no bundle can hold: answers offline, flags of the guard."""
    conditions = {}
    for label, found in seen.items():
        with torch.no_grad():
            said = study.models["masked"].logits(images[label]).argmax(1).tolist()
        plain = _readings(study, found)
        mine = [
            Reading(truth=one.truth, said=int(now), flagged=one.flagged) for one, now in zip(plain, said, strict=True)
        ]
        conditions[label] = figures(_read(study, mine, label, READER))
    how = "answers offline on the same pixels (no bundle holds a masked head), flags of the guard's monitors"
    return {"name": f"+ feature masking, reader right {READER:.0%}", "measured": how, "conditions": conditions}


def _masking(study: Study) -> dict[str, Any]:
    """Return what masking alone does to the clean images, without any reader."""
    out = {}
    for key, name in (("plain", "hardened"), ("masked", "masked")):
        with torch.no_grad():
            said = study.models[name].logits(study.cohort.test.x.round()).argmax(1).tolist()
        pairs = zip(study.truths, said, strict=True)
        out[key] = figures([Reading(truth=truth, said=int(one)) for truth, one in pairs])["accuracy"]
    return out


def _results(study: Study, rows: Sequence[dict[str, Any]], seconds: float) -> dict[str, Any]:
    settings, training = study.settings, study.cohort.training
    return {
        "settings": {
            "images": len(study.truths), "epochs": settings.epochs, "side": settings.side, "seed": settings.seed,
        },
        "training_rows": len(training.train),
        "validation_rows": len(training.validation),
        "classes": list(study.classes),
        "sent": [study.truths.count(place) for place in range(len(study.classes))],
        "masking": _masking(study),
        "seconds": seconds,
        "peak_mib_of_this_process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "rows": list(rows),
    }  # fmt: skip


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
