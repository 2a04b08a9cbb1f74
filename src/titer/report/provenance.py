"""Where the numbers come from: versions, commit, seeds, digests, hardware."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from titer.report.format import UNKNOWN, count, duration
from titer.report.load import RunFolder
from titer.report.study import Study
from titer.report.tables import Table, plain, settings


def facts(run: RunFolder, study: Study) -> tuple[tuple[str, str], ...]:
    """Return what was tested, as (name, value) for the first page."""
    manifest, data = run.manifest, run.manifest["data"]
    sizes = ", ".join(f"{count(data.get(f'n_{part}'))} {word}" for part, word in _PARTS if data.get(f"n_{part}") is not None)
    fixed = "the data set's own test part, the same in every trial" if data.get("test_fixed") else "split anew by patient in every trial"
    return (
        ("Model" if len(study.models) == 1 else "Models", ", ".join(study.models)),
        ("Data", str(data.get("title") or data.get("name") or UNKNOWN)),
        ("Classes", ", ".join(study.classes) or UNKNOWN),
        ("Positive finding", study.positive_name or "none: several classes"),
        ("Patients tested", f"{count(study.patients)} different over all trials; test part: {fixed}"),
        ("Rows per trial", sizes or UNKNOWN),
        ("Trials", f"{study.trials} (each with new seeds for training and attack)"),
        ("Defences", ", ".join(study.defense_title(d) for d in study.defenses if d != "none") or "none tested"),
        ("Attacks", ", ".join(attack.title for attack in study.attacks)),
        ("Date", _date(manifest)),
        ("Titer", str(manifest.get("titer_version") or UNKNOWN)),
    )


_PARTS = (("train", "training"), ("validation", "validation"), ("test", "test"))


def _date(manifest: dict[str, Any]) -> str:
    return str(manifest.get("finished") or manifest.get("started") or UNKNOWN)[:10]


def provenance(run: RunFolder, study: Study) -> tuple[Table, ...]:
    """Return the provenance tables."""
    manifest, data = run.manifest, run.manifest["data"]
    hardware = manifest.get("hardware") or {}
    return (
        _pairs(
            "Run",
            [
                ("Name", manifest.get("name")),
                ("Run", manifest.get("run")),
                ("Titer version", manifest.get("titer_version")),
                ("Commit", manifest.get("commit")),
                ("Started", manifest.get("started")),
                ("Finished", manifest.get("finished")),
                ("Wall time", duration(manifest.get("wall_seconds"))),
                ("Seed", manifest.get("seed")),
                ("Seeds of the trials", ", ".join(map(str, manifest.get("trial_seeds") or []))),
                ("Plan, SHA-256", manifest.get("plan_sha256")),
            ],
        ),
        _pairs(
            "Data",
            [
                ("Name", data.get("name")),
                ("Title", data.get("title")),
                ("Source", data.get("source")),
                ("Licence", data.get("licence")),
                ("SHA-256", data.get("sha256")),
                ("Kind", data.get("kind")),
                ("Subgroup columns", ", ".join(study.groups) or "none"),
            ],
        ),
        _pairs("Hardware and software", [*_items(hardware), ("Python", manifest.get("python")), *_items(manifest.get("packages"))]),
        plain(
            "Models and defences",
            ("Label", "Title", "Settings"),
            [(str(one.get("label")), "base model", settings(one.get("spec"))) for one in manifest["models"]]
            + [(str(o.get("label")), str(o.get("title") or ""), settings(o.get("spec"))) for o in manifest["defenses"]],
            3,
        ),
        plain(
            "Weights",
            ("Trial", "Model", "Defence", "SHA-256"),
            [
                (str(one.get("trial")), str(one.get("model")), str(one.get("defense")), str(one.get("sha256")))
                for one in manifest.get("weights") or []
            ],
            4,
        ),
    )


def _items(mapping: dict[str, Any] | None) -> list[tuple[str, Any]]:
    return [(str(key).replace("_", " "), value) for key, value in (mapping or {}).items()]


def _pairs(caption: str, pairs: Iterable[tuple[str, Any]]) -> Table:
    rows = [(name, UNKNOWN if value in (None, "") else str(value)) for name, value in pairs]
    return plain(caption, ("What", "Value"), rows, 2)
