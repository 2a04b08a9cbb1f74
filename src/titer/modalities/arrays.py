"""Your own arrays: an .npz file of images or of a table, with labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np

from titer.core.errors import SpecError
from titer.core.outputs import Output
from titer.core.plugins import Positive, Share, modality
from titer.core.protocols import Modality
from titer.core.record import ClinicalData, Samples
from titer.modalities._checks import (
    PARTS,
    check_classes,
    check_patient_values,
    check_patients,
    checked,
    class_names,
    class_numbers,
    divided,
    failing,
    listed,
    part_names,
    positive_class,
    refuse,
    samples,
)
from titer.modalities._files import Arrays, read_npz, scratch
from titer.modalities._images import RANGES, grey_box, image_units
from titer.modalities._truths import Truths, check_names, check_task, findings, mask, value
from titer.threats.rules import Box

_COLUMNS = ("patient_id", "sex", "age", "site", "split")
_PREFIXES = ("train_", "val_", "test_")
_COLOURS = (1, 3)


@modality("arrays")
def arrays(
    *,
    file: str,
    task: Output = "classes",
    classes: tuple[str, ...] | None = None,
    positive: str | None = None,
    tolerance: Positive | None = None,
    value_range: tuple[float, float] | None = None,
    feature_names: tuple[str, ...] | None = None,
    feature_units: tuple[str, ...] | None = None,
    test_share: Share = 0.3,
    validation_share: Share = 0.15,
    title: str = "",
    licence: str = "",
) -> Modality:
    """Your own arrays: an .npz file with `images` (or `x`) and `labels` (or `y`).

    [N, H, W] and [N, H, W, C] are images, [N, features] is a table. The file may also hold `patient_id` (without it,
    each row is a patient of its own), `sex`, `age`, `site`, `split` (train, validation, test), `class_names` and
    `feature_names`. The form of MedMNIST (`train_images`, `val_labels` ...) fixes the parts. Nothing is unpickled.

    Args:
        file: the .npz file; a plan takes it from its own folder.
        task: what `labels` tells of a row: `classes`, one diagnosis [N]; `labels`, several findings that may stand
            together, [N, findings] of 0 and 1; `value`, a measurement [N]; `mask`, a segmentation [N, H, W].
        classes: names of the classes in order; by default `class_names`, the sorted labels, or 0 to the largest. Of
            findings their names, of a value its one name, of a mask its classes with the background first.
        positive: the class that is the finding; by default the last of two.
        tolerance: largest error of a value that does no harm, in the value's own unit; needed there.
        value_range: lowest and highest possible value; known for uint8 and uint16 images, needed for other images.
        feature_names: names of a table's columns.
        feature_units: their units.
        test_share: share of the patients tested in each trial, where the file does not fix the parts.
        validation_share: share of the others that stops training early.
        title: how the report calls the data.
        licence: what the report says of its licence.
    """
    check_task(task, classes, positive, tolerance)
    if positive is not None:
        check_classes(classes, positive)
    if value_range is not None and not -np.inf < value_range[0] < value_range[1] < np.inf:
        raise SpecError(f"data.value_range = {list(value_range)!r} is not allowed: a lower and a higher finite number")

    def load() -> ClinicalData:
        content = read_npz(Path(file), "data.file")
        rows = _read_rows(content, classes or _texts(content, "class_names"), task)
        limits = _limits(rows, value_range)
        names = feature_names or _texts(content, "feature_names")
        _check_features(rows, names, feature_units)
        pool, fixed = divided(rows.samples, rows.parts)
        box = () if limits is None else (_box(rows.kind, limits),)
        return checked(
            ClinicalData(
                name="arrays",
                title=title or Path(file).stem,
                kind=rows.kind,
                source=f"the user's own arrays: {Path(file).name}",
                licence=licence or "not stated",
                classes=rows.classes,
                positive=positive_class(positive, rows.classes) if task == "classes" else None,
                pool=pool,
                fixed=fixed,
                domain=box,
                units=_units(rows.kind, limits),
                value_range=limits,
                feature_names=names,
                feature_units=feature_units,
                test_share=test_share,
                validation_share=validation_share,
                output=task,
                tolerance=tolerance,
            )
        )

    return load


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """All rows of the file, the part of each where the file fixes it, and how the values were stored."""

    samples: Samples
    parts: list[str] | None
    classes: tuple[str, ...]
    kind: Literal["image", "table"]
    stored: str


def _read_rows(content: Arrays, classes: tuple[str, ...] | None, task: Output) -> _Rows:
    blocks = [p for p in _PREFIXES if any(name.startswith(p) for name in content)]
    if blocks:
        _check_medmnist(content, blocks)
        found = [_block(content, prefix, task) for prefix in _PREFIXES]
        block = {key: _joined([one[key] for one in found]) for key in _shared_keys(found)}
        block["split"] = np.repeat([PARTS[p[:-1]] for p in _PREFIXES], [len(one["x"]) for one in found])
        ids = [f"{p}{i:05d}" for p, one in zip(_PREFIXES, found, strict=True) for i in range(len(one["x"]))]
    else:
        block = _block(content, "", task)
        ids = [f"row_{i:05d}" for i in range(len(block["x"]))]
    return _assembled(block, ids, classes, task)


def _joined(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Return the blocks as one array, mapped where it is large, so that memory does not hold both."""
    return np.concatenate(blocks, out=scratch((sum(map(len, blocks)), *blocks[0].shape[1:]), np.result_type(*blocks)))


def _check_medmnist(content: Arrays, blocks: list[str]) -> None:
    whole = [name for name in ("images", "x", "labels", "y") if name in content]
    if whole:
        raise SpecError(f"data.file holds both {whole[0]} and {blocks[0]}...: allowed is one form")
    absent = [f"{p}images and {p}labels" for p in _PREFIXES if p not in blocks]
    if absent:
        raise SpecError(f"data.file lacks {listed(absent)}: train, val and test are all needed")


def _block(content: Arrays, prefix: str, task: Output) -> Arrays:
    """Return `x`, `y` and the columns of all rows, or of one part; checked for their lengths and shapes."""
    block = {"x": _needed(content, prefix, "images", "x"), "y": _needed(content, prefix, "labels", "y")}
    check_patients([name.removeprefix(prefix) for name in content if name.startswith(prefix)])
    block |= {name: content[prefix + name] for name in _COLUMNS if prefix + name in content}
    if block["x"].ndim < 2:
        raise SpecError(f"data.{prefix}images has the shape {block['x'].shape}: allowed are {_SHAPES}")
    many = {"x", "y"} if task in ("labels", "mask") else {"x"}
    for name, values in block.items():
        if values.ndim == 0 or (name not in many and values.size != len(values)):
            raise SpecError(f"data.{prefix}{name} has the shape {values.shape}: allowed is one value a row")
        if len(values) != len(block["x"]):
            raise SpecError(f"data.{prefix}{name} has {len(values)} rows where the images or x have {len(block['x'])}")
    return block


def _needed(content: Arrays, prefix: str, *names: str) -> np.ndarray:
    found = [prefix + name for name in names if prefix + name in content]
    if len(found) != 1:
        what = "holds both" if found else "holds neither"
        raise SpecError(
            f"data.file {what} {' and '.join(prefix + name for name in names)}: one of them is needed; "
            f"it holds {listed(sorted(content)) or 'nothing'}"
        )
    return content[found[0]]


def _shared_keys(blocks: list[Arrays]) -> list[str]:
    """Return the keys of the three parts; refuse parts that differ in keys, row shape or type."""
    first = blocks[0]
    for prefix, one in zip(_PREFIXES, blocks, strict=True):
        if one.keys() != first.keys():
            key = min(one.keys() ^ first.keys())
            raise SpecError(f"data.file has {key} in some parts only: allowed is all of train_, val_ and test_{key}")
        kinds = [(b["x"].shape[1:], b["x"].dtype.name) for b in (first, one)]
        if kinds[0] != kinds[1]:
            raise SpecError(f"data.{prefix}images has rows {kinds[1]}, train_images {kinds[0]}: allowed is one kind")
    return list(first)


_SHAPES = "[N, features], [N, H, W], [N, H, W, 1] and [N, H, W, 3]"


def _assembled(block: Arrays, ids: list[str], classes: tuple[str, ...] | None, task: Output) -> _Rows:
    texts = {name: _text_list(values) for name, values in block.items() if name not in ("x", "y")}
    x, kind = _shaped(block["x"])
    check_names(task, classes)
    y, names, problems = _truths(block["y"], classes, ids, task, tuple(x.shape[2:]))
    problems += check_patient_values(texts.get("patient_id", ids), ids)
    parts = None
    if "split" in texts:
        parts, wrong = part_names(texts["split"], ids)
        problems += wrong
    refuse(problems)
    rows = samples(x, y, ids=ids, patients=texts.get("patient_id", ids), columns=texts)
    return _Rows(samples=rows, parts=parts, classes=names, kind=kind, stored=block["x"].dtype.name)


def _truths(
    values: np.ndarray, names: tuple[str, ...] | None, ids: list[str], task: Output, sides: tuple[int, ...]
) -> Truths:
    """Return what is told of the rows in the form of the task; `sides` are those of an image."""
    if task == "labels":
        return findings(values, names, ids, listed)
    if task == "value":
        return value(values, names, ids, listed)
    if task == "mask":
        return mask(values, names, ids, sides, listed)
    texts = _text_list(values)
    names = names or class_names(texts)
    numbers, problems = class_numbers(texts, names, ids)
    return Truths(numbers, names, problems)


def _shaped(x: np.ndarray) -> tuple[np.ndarray, Literal["image", "table"]]:
    """Return a table [N, F], or images as [N, C, H, W]."""
    if x.dtype.kind not in "biuf":
        raise SpecError(f"data.images holds values of type {x.dtype.name}: allowed are whole and real numbers")
    if x.ndim == 2:
        return x, "table"
    if x.ndim == 3:
        return x[:, None], "image"
    if x.ndim == 4 and x.shape[3] in _COLOURS:
        return x.transpose(0, 3, 1, 2), "image"
    hint = ": channels come last" if x.ndim == 4 and x.shape[1] in _COLOURS else ""
    raise SpecError(f"data.images has the shape {x.shape}: allowed are {_SHAPES}{hint}")


def _text_list(values: np.ndarray) -> list[str]:
    flat = cast("list[object]", values.reshape(-1).tolist())
    return [(one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one)).strip() for one in flat]


def _texts(content: Arrays, key: str) -> tuple[str, ...] | None:
    return tuple(_text_list(content[key])) if key in content else None


def _limits(rows: _Rows, value_range: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return the value range, given or known from the type; SpecError where values lie outside or none is known."""
    limits = value_range or (RANGES.get(rows.stored) if rows.kind == "image" else None)
    if limits is None:
        if rows.kind == "table":
            return None
        raise SpecError(f"data.value_range is missing: {rows.stored} images need it, as in value_range = [0.0, 1.0]")
    outside = failing(lambda x: ~((x < limits[0]) | (x > limits[1])).flatten(1).any(1), rows.samples.x)
    if outside:
        flat = rows.samples.x[outside]
        named = listed([rows.samples.ids[i] for i in outside])
        span = f"{float(flat.min()):g} to {float(flat.max()):g}"
        raise SpecError(
            f"data.value_range = {list(limits)!r} does not hold in {len(outside)} rows ({named}), "
            f"whose values are {span}"
        )
    return limits


def _check_features(rows: _Rows, names: tuple[str, ...] | None, units: tuple[str, ...] | None) -> None:
    for setting, values in (("feature_names", names), ("feature_units", units)):
        if values is None:
            continue
        if rows.kind == "image":
            raise SpecError(f"data.{setting} is given for images: allowed for tables only")
        if len(values) != rows.samples.x.shape[1]:
            raise SpecError(f"data.{setting} has {len(values)} values: the table has {rows.samples.x.shape[1]} columns")
    if names is not None and len(set(names)) != len(names):
        twice = listed(sorted({name for name in names if names.count(name) > 1}))
        raise SpecError(f"data.feature_names holds names twice: {twice}; each needs a name of its own")


def _box(kind: str, limits: tuple[float, float]) -> Box:
    if kind == "image":
        return grey_box(limits)
    return Box(low=limits[0], high=limits[1], text=f"each value in [{limits[0]:g}, {limits[1]:g}]")


def _units(kind: str, limits: tuple[float, float] | None) -> dict[str, float | Literal["sd"]]:
    if kind == "image":
        assert limits is not None
        return {**image_units(limits)}
    return {"sd": "sd"} if limits is None else {"sd": "sd", "range": limits[1] - limits[0]}
