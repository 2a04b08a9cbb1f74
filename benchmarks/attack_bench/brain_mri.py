"""The four-class subject: brain MRI slices in grey, 64 x 64, trained through Titer's own image-folder modality."""

from __future__ import annotations

import csv
import io
import os
import zipfile
from pathlib import Path

SIZE = 64
EVERY = 6
"""Every sixth training image stops the training early."""

PLAN = """\
name = "brain-mri"
trials = 1
seed = 2026
attacks = ["fgsm"]

[data]
name = "image-folder"
folder = "images"
labels = "labels.csv"
size = [{size}, {size}]
title = "Brain MRI, 4 classes"
licence = "CC0"

[training]
epochs = 40
batch_size = 64
learning_rate = 0.004
patience = 12
weight_decay = 0.05

[[models]]
label = "small-cnn"
network = "small-cnn"

[[threats]]
norm = "linf"
eps = [4]
unit = "/255"

[[defenses]]
label = "adversarial training"
defense = {{ name = "adversarial-training", eps = 4, unit = "/255", epochs = 40, learning_rate = 0.004 }}
"""


def data_folder() -> Path:
    """Return where the images should lie; unlike the chest X-rays, nothing fetches them."""
    return Path(os.environ.get("TITER_DATA") or "../shared/data") / "brain_mri"


def mri_plan(work: Path) -> Path:
    """Unpack the brain MRI images beside a plan, which is returned; parts are those of the index."""
    data = data_folder()
    folder = work / "brain-mri"
    if not (folder / "plan.toml").is_file():
        (folder / "images").mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(data / "brain_tumor_4class_224.zip") as images:
            images.extractall(folder / "images")
        (folder / "labels.csv").write_text(_labels((data / "brain_tumor_4class_index.csv").read_text()))
        (folder / "plan.toml").write_text(PLAN.format(size=SIZE))
    return folder / "plan.toml"


def _labels(index: str) -> str:
    """Return the index as an image-folder's labels: every sixth training image validates."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(("image", "label", "split"))
    trained = 0
    for row in csv.DictReader(io.StringIO(index)):
        part = "test"
        if row["split"] == "Training":
            trained += 1
            part = "validation" if trained % EVERY == 0 else "train"
        writer.writerow((row["file"], row["label"], part))
    return out.getvalue()
