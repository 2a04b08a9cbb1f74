"""Every wrong thing a user can give is one line on stderr, exit status 2, no traceback, and nothing half-written."""

from __future__ import annotations

import csv
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from titer.cli.main import run

PLAN = """
name = "tiny"
trials = 1
workers = 1
attacks = ["fgsm"]
{top}

[data]
{data}

[training]
epochs = 1
{training}

[[models]]
label = "net"
{model}

[[threats]]
norm = "{norm}"
eps = {eps}
unit = "{unit}"
{threat}

[[defenses]]
{defense}
"""
GOOD = {
    "top": "",
    "data": 'name = "cytology"',
    "training": "",
    "model": 'network = "mlp"',
    "norm": "linf",
    "eps": "[0.1]",
    "unit": "sd",
    "threat": "",
    "defense": 'defense = "none"',
}
ARRAYS = {"data": 'name = "arrays"\nfile = "data.npz"', "unit": "/255", "eps": "[2]", "model": 'network = "small-cnn"'}
FOLDER = {"data": 'name = "image-folder"\nfolder = "images"\nlabels = "labels.csv"', "unit": "/255", "eps": "[2]"}

PARTS = ("train", "validation", "test")
Prepare = Callable[[Path], None]


def nothing(_folder: Path) -> None:
    """Leave the folder empty."""


def arrays(**changes: np.ndarray) -> Prepare:
    """Write data.npz: 40 images of 8 x 8 in two classes, with changes."""

    def prepare(folder: Path) -> None:
        rng = np.random.default_rng(0)
        content = {
            "images": rng.integers(0, 256, (40, 8, 8)).astype(np.uint8),
            "labels": np.arange(40) % 2,
            "class_names": np.array(["healthy", "ill"]),
        }
        np.savez(folder / "data.npz", **(content | changes))

    return prepare


def with_nan() -> np.ndarray:
    """Return 40 float images, one pixel of image 7 not a number."""
    images = np.zeros((40, 8, 8), dtype=np.float32)
    images[7, 0, 0] = np.nan
    return images


def folder_of_images(
    *, broken: tuple[int, ...] = (), missing: tuple[int, ...] = (), split: Callable[[int], str] | None = None,
    label: Callable[[int], str] = lambda i: "ill" if i % 2 else "healthy",
) -> Prepare:  # fmt: skip
    """Write 24 images of 8 patients with labels.csv; some broken, some missing, some in fixed parts."""

    def prepare(folder: Path) -> None:
        (folder / "images").mkdir()
        rows = []
        for i in range(24):
            path = folder / "images" / f"scan{i:02d}.png"
            if i in broken:
                path.write_bytes(b"not an image")
            elif i not in missing:
                Image.fromarray(np.full((8, 8), 10 * i, dtype=np.uint8)).save(path)
            row = {"image": path.name, "label": label(i), "patient_id": f"p{i % 8}"}
            rows.append(row | ({} if split is None else {"split": split(i)}))
        with (folder / "labels.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    return prepare


class _Exploit:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return Path("exploited").write_text, ("owned",)


def pickled_weights(folder: Path) -> None:
    """Write weights that run code when they are unpickled."""
    with (folder / "weights.pt").open("wb") as stream:
        pickle.dump({"layer": _Exploit()}, stream)


def foreign_weights(folder: Path) -> None:
    """Write weights of another network."""
    torch.save({"other.weight": torch.zeros(2)}, folder / "weights.pt")


def one_class_rare(folder: Path) -> None:
    """Write arrays in which one class has a single patient."""
    arrays(labels=np.array([1] + [0] * 39))(folder)


ENDPOINT = 'endpoint = { url = "http://127.0.0.1:1", model = "m" }'


def endpoint(**settings: object) -> dict[str, str]:
    """Return the change that makes the model a remote one with these settings."""
    merged = {"url": "http://127.0.0.1:1", "model": "m"} | settings
    text = ", ".join(f'{key} = "{v}"' if isinstance(v, str) else f"{key} = {v}" for key, v in merged.items())
    return {"model": f"endpoint = {{ {text} }}"}


CASES: dict[str, tuple[dict[str, str], Prepare, tuple[str, ...]]] = {
    "unknown key": ({"top": "trails = 5"}, nothing, ("trails = 5", "not a known key", "did you mean 'trials'")),
    "unknown key in a threat": ({"threat": "epsilon = 2"}, nothing, ("threats", "epsilon", "allowed are", "eps")),
    "unknown training key": ({"training": "epoch = 3"}, nothing, ("training", "epoch", "did you mean 'epochs'")),
    "unknown data key": ({"data": 'name = "cytology"\nshare = 0.2'}, nothing, ("share", "test_share")),
    "misspelt attack": ({"top": 'attacks = ["pdg"]'}, nothing, ("'pdg'", "did you mean 'pgd'", "fgsm")),
    "misspelt defence": ({"defense": 'defense = "jpg"'}, nothing, ("'jpg'", "did you mean 'jpeg'")),
    "misspelt modality": ({"data": 'name = "citology"'}, nothing, ("'citology'", "did you mean 'cytology'")),
    "misspelt network": ({"model": 'network = "mpl"'}, nothing, ("'mpl'", "did you mean 'mlp'")),
    "misspelt norm": ({"norm": "lnf"}, nothing, ("norm = 'lnf'", "linf")),
    "unknown attack setting": ({"top": 'attacks = [{name = "pgd", step_size = 1}]'}, nothing, ("step_size", "steps")),
    "attack setting out of range": ({"top": 'attacks = [{name = "pgd", steps = 0}]'}, nothing, ("steps = 0", "1")),
    "eps negative": ({"eps": "[-0.1]"}, nothing, ("eps", "-0.1", "greater than 0")),
    "eps zero": ({"eps": "[0]"}, nothing, ("eps", "greater than 0")),
    "eps infinite": ({"eps": "[inf]"}, nothing, ("eps", "inf")),
    "eps absent": ({"eps": "[]"}, nothing, ("eps",)),
    "unit of another data set": ({"unit": "/255"}, nothing, ("unit = '/255'", "allowed are sd")),
    "eps in the wrong unit": (ARRAYS | {"unit": "range", "eps": "[8]"}, arrays(), ("eps = 8", "range", "/255")),
    "unit of a defence": (
        {"defense": 'defense = {name = "adversarial-training", eps = 1, unit = "grey"}'}, nothing, ("'grey'", "sd"),
    ),
    "trials 0": ({"top": "trials = 0"}, nothing, ("trials = 0", "1")),
    "goal unknown": ({"threat": 'goal = "targeted:maligant"'}, nothing, ("targeted:maligant", "targeted:malignant")),
    "feature unknown": ({"threat": 'features = ["mean radios"]'}, nothing, ("mean radios", "mean radius")),
    "mask missing": ({"threat": 'mask = "mask.npy"'}, nothing, ("mask.npy", "no such file")),
    "reserved attack label": (
        {"top": 'attacks = [{name = "pgd", label = "none"}]'}, nothing, ("attacks.label = 'none'",),
    ),
    "undefended renamed": ({"defense": 'label = "base"\ndefense = "none"'}, nothing, ("label = 'base'", "none")),
    "a budget twice": ({"eps": "[0.1, 0.1]"}, nothing, ("eps", "twice")),
    "unknown key of a model": (
        {"model": 'network = "mlp"\nwieghts = "a"'}, nothing, ("wieghts", "did you mean 'weights'"),
    ),
    "no model file": ({"model": 'onnx = "model.onnx"'}, nothing, ("model.onnx",)),
    "both network and onnx": ({"model": 'network = "mlp"\nonnx = "m.onnx"'}, nothing, ("exactly one",)),
    "both network and endpoint": (
        {"model": f'network = "mlp"\n{ENDPOINT}'}, nothing, ("exactly one of", "network and endpoint are given"),
    ),
    "both onnx and endpoint": ({"model": f'onnx = "m.onnx"\n{ENDPOINT}'}, nothing, ("onnx and endpoint are given",)),
    "weights of an endpoint": (
        {"model": f'weights = "w.pt"\n{ENDPOINT}'}, nothing, ("weights = 'w.pt'", "not allowed with endpoint"),
    ),
    "endpoint not a table": ({"model": 'endpoint = "http://127.0.0.1"'}, nothing, ("endpoint", "dictionary")),
    "endpoint without a model": (
        {"model": 'endpoint = { url = "http://127.0.0.1" }'}, nothing, ("models.net.endpoint.model is missing",),
    ),
    "endpoint url without scheme": (endpoint(url="127.0.0.1:8000"), nothing, ("url = '127.0.0.1:8000'", "http://HOST")),
    "endpoint url of another scheme": (endpoint(url="file:///etc/passwd"), nothing, ("file:///etc/passwd", "http://HOST")),
    "endpoint url with a bad port": (endpoint(url="http://a:99999"), nothing, ("http://a:99999", "http://HOST:PORT")),
    "endpoint time-out negative": (endpoint(timeout=-1), nothing, ("endpoint.timeout = -1", "greater than 0")),
    "endpoint time-out infinite": (endpoint(timeout=float("inf")), nothing, ("endpoint.timeout = inf", "finite")),
    "endpoint retries negative": (endpoint(retries=-1), nothing, ("endpoint.retries = -1", "equal to 0")),
    "endpoint batch of no rows": (endpoint(batch_size=0), nothing, ("endpoint.batch_size = 0",)),
    "endpoint budget of nothing": (endpoint(max_queries=0), nothing, ("endpoint.max_queries = 0",)),
    "endpoint access": (endpoint(access="gradient"), nothing, ("access = 'gradient'", "'scores' or 'decision'")),
    "unknown key of an endpoint": (
        endpoint(retrys=3), nothing, ("endpoint.retrys = 3", "not a known key", "did you mean 'retries'"),
    ),
    "endpoint token in a variable that is not set": (
        endpoint(token_env="TITER_TEST_NO_SUCH_VARIABLE"), nothing, ("TITER_TEST_NO_SUCH_VARIABLE", "not set"),
    ),
    "endpoint token file missing": (endpoint(token_file="no.txt"), nothing, ("no.txt", "cannot be read")),
    "endpoint token from two places": (
        endpoint(token_file="t.txt", token_env="TOKEN"), nothing, ("both token_env and token_file",),
    ),
    "endpoint token in the clear": (
        endpoint(url="http://ward.example", token_env="TOKEN"), nothing, ("http://ward.example", "use https"),
    ),
    "endpoint certificates missing": (
        endpoint(url="https://127.0.0.1:1", verify="ca.pem"), nothing, ("verify = 'ca.pem'", "certificates"),
    ),
    "import path unknown": ({"model": 'network = "nowhere.net:build"'}, nothing, ("nowhere.net:build",)),
    "weights missing": ({"model": 'network = "mlp"\nweights = "w.safetensors"'}, nothing, ("w.safetensors", "no such")),
    "weights a pickle": (
        {"model": 'network = "mlp"\nweights = "weights.pt"'}, pickled_weights, ("weights.pt", "weights_only=True"),
    ),
    "weights of another network": (
        {"model": 'network = "mlp"\nweights = "weights.pt"'}, foreign_weights, ("weights.pt", "other.weight"),
    ),
    "data file missing": (ARRAYS, nothing, ("data.npz",)),
    "label outside the classes": (
        ARRAYS, arrays(labels=np.arange(40) % 2 + (np.arange(40) == 5) * 4), ("label", "5", "healthy"),
    ),
    "NaN pixels": (
        ARRAYS | {"data": ARRAYS["data"] + "\nvalue_range = [0, 255]"}, arrays(images=with_nan()), ("NaN",),
    ),
    "pickled arrays": (ARRAYS, arrays(labels=np.array([{}] * 40, dtype=object)), ("data.npz",)),
    "lengths differ": (ARRAYS, arrays(labels=np.arange(39) % 2), ("39", "40")),
    "one class too rare to split": (ARRAYS, one_class_rare, ("class", "2 patients")),
    "images unreadable, all named": (
        FOLDER | {"model": 'network = "small-cnn"'}, folder_of_images(broken=(3, 5), missing=(7,)),
        ("scan03.png", "scan05.png", "scan07.png"),
    ),
    "one class absent from a part": (
        FOLDER | {"model": 'network = "small-cnn"'},
        folder_of_images(split=lambda i: PARTS[i % 3], label=lambda i: "ill" if i % 3 else "ok"),
        ("class", "ill", "train"),
    ),
    "a patient in two parts": (
        FOLDER | {"model": 'network = "small-cnn"'},
        folder_of_images(split=lambda i: PARTS[i // 8]), ("patient", "p0", "train", "test"),
    ),
    "image folder missing": (FOLDER | {"model": 'network = "small-cnn"'}, nothing, ("labels.csv",)),
}  # fmt: skip


def fill(changes: dict[str, str]) -> str:
    """Return the plan with changes; a top-level key given twice replaces the first."""
    text = PLAN.format(**(GOOD | changes))
    for key in ("trials", "attacks"):
        if changes.get("top", "").startswith(f"{key} ="):
            first = next(line for line in text.splitlines() if line.startswith(f"{key} ="))
            text = text.replace(first + "\n", "", 1)
    return text


@pytest.mark.parametrize("name", CASES)
def test_bad_input(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, prepare, expected = CASES[name]
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    (tmp_path / "plan.toml").write_text(fill(changes))
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["titer", "assess", "plan.toml"])
    with pytest.raises(SystemExit) as stop:
        run()
    err = capsys.readouterr().err
    message = [line for line in err.splitlines() if line.startswith("titer: ")]
    assert stop.value.code == 2, err
    assert len(message) == 1, err
    assert "Traceback" not in err
    for fragment in expected:
        assert fragment in message[0]
    assert not (tmp_path / "exploited").exists()
    left = [p for p in tmp_path.rglob("*") if p not in before and "__pycache__" not in p.parts and p.is_file()]
    assert left == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": "http://nurse:s3cret@127.0.0.1:1"}, "url = 'http://***@127.0.0.1:1'"),
        ({"url": "http://127.0.0.1:1/v2?token=s3cret"}, "url = 'http://127.0.0.1:1/v2?***'"),
        ({"url": "ftp://nurse:s3cret@127.0.0.1:1"}, "url = 'ftp://***@127.0.0.1:1'"),
        ({"url": "http://nurse:s3cret and more@a"}, "url = '***@a'"),
        ({"token": "s3cret"}, "endpoint.token is not allowed: no plan holds a secret"),
        ({"api_key": "s3cret"}, "name it by token_env or token_file"),
        ({"token_env": "s3cret.s3cret"}, "not the name of an environment variable"),
    ],
)
def test_a_secret_in_a_plan_is_refused_and_not_repeated(
    settings: dict[str, str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.toml").write_text(fill(endpoint(**settings)))
    monkeypatch.setattr(sys, "argv", ["titer", "assess", "plan.toml"])
    with pytest.raises(SystemExit) as stop:
        run()
    shown = "".join(capsys.readouterr())
    assert stop.value.code == 2
    assert said in shown
    assert "s3cret" not in shown
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "plan.toml"]


def test_the_good_plan_is_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table above proves nothing if the plan it changes were bad itself."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.toml").write_text(fill({}))
    monkeypatch.setattr(sys, "argv", ["titer", "assess", "plan.toml"])
    with pytest.raises(SystemExit) as stop:
        run()
    assert stop.value.code == 0
    assert "report: " in capsys.readouterr().out
    assert (tmp_path / "runs/tiny/report.html").stat().st_size > 10_000


def test_several_mistakes_are_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.toml").write_text(fill({"eps": "[-1]", "training": "epoch = 3", "top": "trails = 2"}))
    monkeypatch.setattr(sys, "argv", ["titer", "assess", "plan.toml"])
    with pytest.raises(SystemExit):
        run()
    message = capsys.readouterr().err
    assert all(word in message for word in ("trails", "epoch", "-1"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["assess", "nowhere.toml"], "nowhere.toml"),
        (["assess", "broken.toml"], "TOML"),
        (["report", "nowhere"], "nowhere"),
        (["data", "fetch", "chest-xrey"], "did you mean 'chest-xray'"),
        (["plugins", "attack"], "attacks"),
        (["harden", "good.toml"], "nothing to harden"),
        (["assess", "good.toml", "--device", "tpu"], "--device = 'tpu'"),
    ],
)
def test_bad_arguments(
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.toml").write_text("name = [")
    (tmp_path / "good.toml").write_text(fill({}))
    monkeypatch.setattr(sys, "argv", ["titer", *arguments])
    with pytest.raises(SystemExit) as stop:
        run()
    err = capsys.readouterr().err
    assert stop.value.code == 2
    assert expected in err
    assert "Traceback" not in err


def test_as_a_process(tmp_path: Path) -> None:
    """The real command: exit status 2 and exactly one line."""
    (tmp_path / "plan.toml").write_text(fill({"eps": "[-1]"}))
    done = subprocess.run(
        [sys.executable, "-m", "titer.cli.main", "assess", "plan.toml"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
