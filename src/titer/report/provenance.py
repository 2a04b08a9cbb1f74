"""Where the numbers come from: versions, commit, seeds, digests, hardware."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from titer.report.format import UNKNOWN, count, duration, join
from titer.report.graded import right_words
from titer.report.load import RunFolder
from titer.report.study import Study
from titer.report.tables import Table, plain, settings


def facts(run: RunFolder, study: Study) -> tuple[tuple[str, str], ...]:
    """Return what was tested, as (name, value) for the first page."""
    manifest, data = run.manifest, run.manifest["data"]
    sizes = ", ".join(
        f"{count(data.get(f'n_{part}'))} {word}" for part, word in _PARTS if data.get(f"n_{part}") is not None
    )
    fixed = (
        "the data set's own test part, the same in every trial"
        if data.get("test_fixed")
        else "split anew by patient in every trial"
    )
    return (
        ("Model" if len(study.models) == 1 else "Models", ", ".join(study.models)),
        ("Data", str(data.get("title") or data.get("name") or UNKNOWN)),
        *_output(study),
        ("Patients tested", f"{count(study.patients)} different ones over all trials; test part: {fixed}"),
        ("Rows per trial", sizes or UNKNOWN),
        ("Trials", f"{study.trials} (each with new seeds for training and attack)"),
        ("Defences", ", ".join(study.defense_title(d) for d in study.defenses if d != "none") or "none tested"),
        ("Attacks", ", ".join(attack.title for attack in study.attacks)),
        ("Date", _date(manifest)),
        ("Titer", str(manifest.get("titer_version") or UNKNOWN)),
    )


def tested(run: RunFolder, study: Study) -> str:
    """Say in one line what was tested: model, data, patients, classes, trials."""
    data = run.manifest["data"]
    models = ("Model " if len(study.models) == 1 else "Models ") + join(list(study.models))
    trials = "1 trial" if study.trials == 1 else f"{study.trials} trials"
    name = str(data.get("title") or data.get("name") or "unnamed data")
    classes = f"classes: {', '.join(study.classes)}" if not study.graded else f"output: {_OUTPUTS[study.output]}"
    patients = "patient" if study.patients == 1 else "patients"
    return f"{models} · {name} · {count(study.patients)} {patients} · {classes} · {trials}"


_OUTPUTS = {"labels": "several findings", "value": "a value", "mask": "a mask", "other": "no class"}


def _output(study: Study) -> list[tuple[str, str]]:
    classes = ", ".join(study.classes) or UNKNOWN
    if not study.graded:
        return [("Classes", classes), ("Positive finding", study.positive_name or "none: several classes")]
    unit = f" in {study.output_unit}" if study.output_unit else ""
    findings = [("Findings", classes)] if study.output == "labels" else []
    return [("Output", _OUTPUTS[study.output] + unit), *findings, ("A row is right where", right_words(study))]


_PARTS = (("train", "training"), ("validation", "validation"), ("test", "test"))


def _date(manifest: dict[str, Any]) -> str:
    return str(manifest.get("finished") or manifest.get("started") or UNKNOWN)[:10]


def provenance(run: RunFolder, study: Study) -> tuple[Table, ...]:
    """Return the provenance tables."""
    manifest = run.manifest
    software = [("Python", manifest.get("python")), *_items(manifest.get("packages"))]
    return (
        _run_table(manifest),
        _data_table(manifest["data"], study),
        _pairs("Hardware and software", [*_items(manifest.get("hardware")), *software]),
        _plugins_table(manifest),
        _weights_table(manifest),
    )


def _run_table(manifest: dict[str, Any]) -> Table:
    return _pairs(
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
    )


def _data_table(data: dict[str, Any], study: Study) -> Table:
    names = {
        "name": "Name",
        "title": "Title",
        "source": "Source",
        "licence": "Licence",
        "sha256": "SHA-256",
        "kind": "Kind",
    }
    pairs = [(name, data.get(key)) for key, name in names.items()]
    return _pairs("Data", [*pairs, ("Subgroup columns", ", ".join(study.groups) or "none")])


def _plugins_table(manifest: dict[str, Any]) -> Table:
    models = [(str(one.get("label")), "base model", settings(one.get("spec"))) for one in manifest["models"]]
    defenses = [
        (
            str(one.get("label")),
            "; ".join([str(one.get("title") or ""), *map(str, one.get("papers") or [])]),
            settings(one.get("spec")),
        )
        for one in manifest["defenses"]
    ]
    return plain("Models and defences", ("Label", "Title and paper", "Settings"), models + defenses, 3)


def _weights_table(manifest: dict[str, Any]) -> Table:
    keys = ("trial", "model", "defense", "sha256")
    rows = [tuple(str(one.get(key)) for key in keys) for one in manifest.get("weights") or []]
    return plain("Weights", ("Trial", "Model", "Defence", "SHA-256"), rows, 4)


def _items(mapping: dict[str, Any] | None) -> list[tuple[str, Any]]:
    return [(str(key).replace("_", " "), value) for key, value in (mapping or {}).items()]


def _pairs(caption: str, pairs: Iterable[tuple[str, Any]]) -> Table:
    rows = [(name, UNKNOWN if value in (None, "") else str(value)) for name, value in pairs]
    return plain(caption, ("What", "Value"), rows, 2)
