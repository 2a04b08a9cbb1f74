from __future__ import annotations

import json
import sys
import textwrap
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from titer.assess.models import ModelSpec, build, check_spec, pretrained
from titer.core.errors import Incompatible, SpecError
from titer.core.model import Model
from titer.core.record import ClinicalData, Samples

SHAPE = (1, 8, 8)


def samples(x: Tensor) -> Samples:
    names = tuple(f"r{i}" for i in range(len(x)))
    return Samples(x=x, y=torch.arange(len(x)) % 2, ids=names, patients=names)


def clinical(train: Samples, kind: str, value_range: tuple[float, float] | None) -> ClinicalData:
    return ClinicalData(
        name="fake", title="", kind=kind, source="", licence="", classes=("a", "b"), positive=1, pool=train,  # type: ignore[arg-type]
        fixed={}, domain=(), units={"sd": "sd"}, value_range=value_range,
    )  # fmt: skip


X = torch.randint(0, 256, (40, *SHAPE), generator=torch.Generator().manual_seed(0)).float()
TABLE_X = torch.randn(40, 5, generator=torch.Generator().manual_seed(1)) * 3 + 7
IMAGES = clinical(samples(X), "image", (0.0, 255.0))
TABLE = clinical(samples(TABLE_X), "table", None)


def made(folder: Path, data: ClinicalData = IMAGES, seed: int = 0, **keys: Any) -> Model:
    assert data.pool is not None
    return build(ModelSpec(label="own", **keys), data, data.pool, folder=folder, seed=seed, where="models.own")


def refusal(folder: Path, data: ClinicalData = IMAGES, **keys: Any) -> str:
    with pytest.raises(SpecError) as caught:
        made(folder, data, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def code(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Write a module into the plan's folder; return its name, which no other test uses."""

    def write(text: str) -> str:
        name = f"own_{abs(hash(request.node.nodeid)) % 10**9}"
        (tmp_path / f"{name}.py").write_text("from torch import nn\nimport torch\n" + textwrap.dedent(text))
        return name

    return write


LINEAR = """
    def build(outputs=2, bias=True):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, outputs, bias=bias))
"""


def linear(seed: int = 3) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))


# The spec


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "exactly one of network, estimator, onnx, endpoint and huggingface: none is given"),
        (
            {"network": "mlp", "onnx": "a.onnx"},
            "exactly one of network, estimator, onnx, endpoint and huggingface: network and onnx are given",
        ),
        ({"onnx": "a.onnx", "weights": "w.pt"}, "models.own.weights = 'w.pt' is not allowed with onnx"),
        ({"network": "mpl"}, "did you mean 'mlp'?"),
        ({"network": {"name": "mlp", "hiden": [3]}}, "did you mean 'hidden'?"),
        ({"network": {"hidden": [3]}}, "a table with the key 'name'"),
        ({"network": "my pkg:build"}, "is not an import path"),
        ({"network": "mlp", "preprocess": "units"}, "did you mean 'unit'?"),
        ({"network": "mlp", "preprocess": {"mean": [0.0]}}, "allowed are exactly mean and sd"),
        ({"network": "mlp", "preprocess": {"mean": [0.0], "sd": [0.0]}}, "models.own.preprocess.sd = [0.0]"),
        ({"network": "mlp", "preprocess": {"mean": [float("nan")], "sd": [1.0]}}, "finite numbers"),
        ({"network": "mlp", "preprocess": {"mean": [], "sd": []}}, "models.own.preprocess.mean = []"),
        ({"network": "mlp", "output": "scores"}, "models.own.output = 'scores'"),
    ],
)
def test_a_wrong_spec_is_said_before_anything_runs(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as caught:
        check_spec(ModelSpec(label="own", **keys), "models.own")
    assert said in str(caught.value)


def test_an_empty_label_is_refused() -> None:
    with pytest.raises(SpecError, match=r"models\.label"):
        check_spec(ModelSpec(label=" ", network="mlp"), "models")


def test_a_plan_refuses_keys_that_are_none() -> None:
    adapter = TypeAdapter(ModelSpec)
    spec = adapter.validate_python({"label": "a", "network": "mlp", "preprocess": {"mean": [1], "sd": [2]}})
    assert spec == ModelSpec(label="a", network="mlp", preprocess={"mean": [1.0], "sd": [2.0]})
    with pytest.raises(ValidationError, match="wieghts"):
        adapter.validate_python({"label": "a", "network": "mlp", "wieghts": "w.pt"})


def test_pretrained() -> None:
    assert not pretrained(ModelSpec(label="a", network="mlp"))
    assert pretrained(ModelSpec(label="a", network="mlp", weights="w.pt"))
    assert pretrained(ModelSpec(label="a", onnx="a.onnx"))


# Registered networks, seeds and preprocessing


def test_weights_are_drawn_from_the_seed_and_nothing_else(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (made(tmp_path, network="small-cnn", seed=seed) for seed in (5, 5, 6))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.provenance["weights"] == again.provenance["weights"] != other.provenance["weights"]
    assert (first.provenance["model"], first.provenance["pretrained"]) == ("own", "no")
    assert first.logits(X[:3]).shape == (3, 2)
    assert first.net is not None
    assert not any(p.requires_grad for p in first.net.parameters())


def test_unit_is_the_default_for_images_and_standardize_for_tables(tmp_path: Path) -> None:
    image = made(tmp_path, network={"name": "mlp", "hidden": [4]})
    assert image.net is not None
    assert torch.allclose(image.logits(X), image.net(X / 255))
    table = made(tmp_path, TABLE, network="mlp")
    assert table.net is not None
    expected = (TABLE_X - TABLE_X.mean(0)) / TABLE_X.std(0, correction=0)
    assert torch.allclose(table.logits(TABLE_X), table.net(expected), atol=1e-5)


def test_a_feature_that_never_varies_is_only_shifted(tmp_path: Path) -> None:
    x = TABLE_X.clone()
    x[:, 2] = 4.0
    model = made(tmp_path, clinical(samples(x), "table", None), network="mlp")
    assert bool(model.logits(x).isfinite().all())


def test_given_moments_and_none(tmp_path: Path) -> None:
    given = made(tmp_path, network="mlp", preprocess={"mean": [100.0], "sd": [50.0]})
    assert given.net is not None
    assert torch.allclose(given.logits(X), given.net((X - 100) / 50))
    raw = made(tmp_path, network="mlp", preprocess="none")
    assert raw.net is not None
    assert torch.allclose(raw.logits(X), raw.net(X))
    assert given.provenance["build"] != raw.provenance["build"]
    per_channel = made(tmp_path, network="mlp", preprocess="standardize")
    assert json.loads(per_channel.provenance["build"])["preprocess"]["mean"] == pytest.approx([float(X.mean())])


def test_each_row_by_its_own_values(tmp_path: Path) -> None:
    model = made(tmp_path, network="mlp", preprocess="standardize-each")
    assert model.net is not None
    assert torch.allclose(model.logits(X), model.logits(0.5 * X + 30), atol=1e-4)
    plain = torch.full_like(X[:1], 7.0).requires_grad_()
    gradient = torch.autograd.grad(model.logits(plain)[0, 0], plain)[0]
    assert bool(gradient.isfinite().all())


def test_preprocessing_that_does_not_fit_the_data(tmp_path: Path) -> None:
    said = refusal(tmp_path, network="mlp", preprocess={"mean": [1.0, 2.0, 3.0], "sd": [1.0]})
    assert "models.own.preprocess.mean has 3 values: allowed are 1 or 1" in said
    assert "has no value range" in refusal(tmp_path, TABLE, network="mlp", preprocess="unit")


def test_rebuild_keeps_the_preprocessing(tmp_path: Path) -> None:
    model = made(tmp_path, network="mlp")
    assert model.rebuild is not None
    net = linear()
    assert torch.allclose(model.rebuild(net)(X), net(X / 255))


def test_a_network_that_cannot_take_the_rows(tmp_path: Path) -> None:
    said = refusal(tmp_path, TABLE, network="small-cnn")
    assert "models.own.network on rows of shape (5,) failed: RuntimeError" in said


# Import paths


def test_a_network_by_import_path(tmp_path: Path, code: Callable[[str], str]) -> None:
    path = list(sys.path)
    name = code(LINEAR)
    model = made(tmp_path, network={"name": f"{name}:build", "bias": False})
    assert sys.path == path
    assert model.net is not None
    assert set(model.net.state_dict()) == {"1.weight"}
    assert len(json.loads(model.provenance["build"])["source"]) == 64


@pytest.mark.parametrize(
    ("text", "attribute", "said"),
    [
        (LINEAR, "biuld", "did you mean 'build'?"),
        ("build = 3", "build", "is a int: allowed is a callable"),
        ("def build(): return 3", "build", "returned a int: allowed is a torch.nn.Module"),
        ("def build(): return 1 / 0", "build", "failed: ZeroDivisionError: division by zero"),
        ("def build(width): return nn.Linear(1, 1)", "build", "failed: TypeError"),
        ("import absent_module_x", "build", "no module 'absent_module_x'"),
        ("1 / 0", "build", "failed: ZeroDivisionError"),
        ("def build(:", "build", "failed: SyntaxError"),
        ("def build(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))", "build", "returns torch.float32 [2, 3]"),
        (
            "def build(): return nn.Sequential(nn.Flatten(), nn.Linear(9, 2))",
            "build",
            "on rows of shape (1, 8, 8) failed",
        ),
        (
            "class N(nn.Module):\n    def forward(self, x): return {'logits': x}\ndef build(): return N()",
            "build",
            "returns a dict for 2 rows",
        ),
        (
            "class N(nn.Module):\n    def forward(self, x): return x.flatten(1)[:, :2] / 0\ndef build(): return N()",
            "build",
            "returns NaN or infinite values",
        ),
        (
            "class N(nn.Module):\n    def forward(self, x): return torch.randn(len(x), 2)\ndef build(): return N()",
            "build",
            "may not be random by itself",
        ),
        (
            "def build(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 2), nn.Softmax(1))",
            "build",
            "set output = 'probabilities'",
        ),
    ],
)
def test_what_is_wrong_with_a_users_code_is_one_line(
    tmp_path: Path, code: Callable[[str], str], text: str, attribute: str, said: str
) -> None:
    name = code(text)
    message = refusal(tmp_path, network=f"{name}:{attribute}")
    assert said in message
    assert message.startswith("models.own.network")


def test_a_module_that_is_nowhere(tmp_path: Path) -> None:
    assert "no module 'nowhere_net'" in refusal(tmp_path, network="nowhere_net:build")


def test_two_plans_may_each_bring_a_module_of_one_name(tmp_path: Path) -> None:
    for outputs, folder in ((2, "one"), (3, "two")):
        (tmp_path / folder).mkdir()
        text = f"from torch import nn\ndef build(): return nn.Sequential(nn.Flatten(), nn.Linear(64, {outputs}))\n"
        (tmp_path / folder / "titer_twin_net.py").write_text(text)
    assert made(tmp_path / "one", network="titer_twin_net:build").net is not None
    assert "[2, 3]" in refusal(tmp_path / "two", network="titer_twin_net:build")


def test_a_plans_module_replaces_no_other(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("def build(): pass\n")
    assert "a module 'torch' is loaded already" in refusal(tmp_path, network="torch:build")
    assert sys.modules["torch"] is torch


def test_lazy_layers_get_their_shapes(tmp_path: Path, code: Callable[[str], str]) -> None:
    name = code("def build(): return nn.Sequential(nn.Flatten(), nn.LazyLinear(2))")
    save_file({"1.weight": torch.ones(2, 64), "1.bias": torch.zeros(2)}, tmp_path / "w.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch calls lazy modules experimental
        model = made(tmp_path, network=f"{name}:build", weights="w.safetensors")
        first, again = (made(tmp_path, network=f"{name}:build") for _ in range(2))
    assert torch.allclose(model.logits(X)[:, 0], X.flatten(1).sum(1) / 255, rtol=1e-4)
    assert first.provenance["weights"] == again.provenance["weights"]


# Weights


def test_weights_from_safetensors_and_from_a_state_dict(tmp_path: Path, code: Callable[[str], str]) -> None:
    name, net = code(LINEAR), linear()
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    torch.save(net.state_dict(), tmp_path / "w.pt")
    models = [made(tmp_path, network=f"{name}:build", weights=f"w.{kind}") for kind in ("safetensors", "pt")]
    for model in models:
        assert torch.equal(model.logits(X), net(X / 255))
        assert model.provenance["pretrained"] == "yes"
    assert models[0].provenance["weights"] == models[1].provenance["weights"]


def test_weights_that_do_not_fit_name_their_keys(tmp_path: Path, code: Callable[[str], str]) -> None:
    name = code(LINEAR)
    save_file({"1.weight": torch.zeros(3, 64), "head.bias": torch.zeros(2)}, tmp_path / "w.safetensors")
    message = refusal(tmp_path, network=f"{name}:build", weights="w.safetensors")
    assert "1 missing (1.bias)" in message
    assert "1 unexpected (head.bias)" in message
    assert "1 of another shape (1.weight (3, 64) for (2, 64))" in message


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("ending", ["pt", "pth", "bin", "safetensors"])
def test_weights_are_never_unpickled(tmp_path: Path, ending: str) -> None:
    mark = tmp_path / "executed"
    torch.save({"1.weight": Bomb(mark)}, tmp_path / f"w.{ending}")
    message = refusal(tmp_path, network="mlp", weights=f"w.{ending}")
    assert "models.own.weights" in message
    assert not mark.exists()


def test_a_whole_pickled_network_is_refused(tmp_path: Path) -> None:
    torch.save(linear(), tmp_path / "net.pt")
    assert "holds more than tensors" in refusal(tmp_path, network="mlp", weights="net.pt")


@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x04broken", b"PK\x03\x04broken"])
@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_damaged_weights_are_one_line(tmp_path: Path, ending: str, content: bytes) -> None:
    (tmp_path / f"w.{ending}").write_bytes(content)
    assert "models.own.weights" in refusal(tmp_path, network="mlp", weights=f"w.{ending}")


def test_absent_weights(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path, network="mlp", weights="absent.pt")


# Probabilities


def test_probabilities_become_logits(tmp_path: Path, code: Callable[[str], str]) -> None:
    name, net = code("def build(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 2), nn.Softmax(1))"), linear()
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    model = made(tmp_path, network=f"{name}:build", weights="w.safetensors", output="probabilities")
    assert torch.allclose(model.logits(X).softmax(1), net(X / 255).softmax(1), atol=1e-6)
    grad = model.grad(lambda logits: logits[:, 0], X[:4])
    assert float(grad.abs().sum()) > 0
    message = refusal(tmp_path, network="mlp", output="probabilities")
    assert "with output = 'probabilities' returns rows that sum to" in message


# ONNX


def export(net: nn.Module, path: Path, x: Tensor, *, dynamic: bool = True) -> None:
    axes = {"input": {0: "batch"}, "output": {0: "batch"}} if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the exporter that needs no onnxscript is the old one
        torch.onnx.export(
            net.eval(), (x,), str(path), input_names=["input"], output_names=["output"], dynamic_axes=axes, dynamo=False
        )  # fmt: skip


@pytest.mark.parametrize(("rows", "dynamic"), [(2, True), (1, False), (8, False)])
def test_an_onnx_file_gives_the_networks_logits(tmp_path: Path, rows: int, dynamic: bool) -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(64, 2))
    export(net, tmp_path / "net.onnx", X[:rows], dynamic=dynamic)
    model = made(tmp_path, onnx="net.onnx")
    assert torch.allclose(model.logits(X[:21]), net(X[:21] / 255), atol=1e-5)
    assert (model.access, model.net, model.rebuild) == ("scores", None, None)
    assert len(model.provenance["weights"]) == 64
    assert model.provenance["pretrained"] == "yes"


def test_an_onnx_model_has_no_gradient(tmp_path: Path) -> None:
    export(linear(), tmp_path / "net.onnx", X[:2])
    model = made(tmp_path, onnx="net.onnx")
    for seen in (model, model.limited("gradient"), model.limited("scores")):
        with pytest.raises(Incompatible):
            seen.evaluate(lambda logits: logits[:, 0], X[:2])
    with pytest.raises(Incompatible):
        model.limited("gradient").logits(X[:2].clone().requires_grad_(True))
    decision = model.limited("decision").logits(X[:5])
    assert torch.equal(decision.argmax(1), model.logits(X[:5]).argmax(1))
    assert decision.unique().tolist() == [0.0, 1.0]


def test_onnx_probabilities(tmp_path: Path) -> None:
    net = nn.Sequential(linear(), nn.Softmax(1))
    export(net, tmp_path / "net.onnx", X[:2])
    assert "set output = 'probabilities'" in refusal(tmp_path, onnx="net.onnx")
    model = made(tmp_path, onnx="net.onnx", output="probabilities", preprocess={"mean": [0.0], "sd": [255.0]})
    assert torch.allclose(model.logits(X).softmax(1), net(X / 255), atol=1e-6)


def test_an_onnx_file_that_is_none_or_does_not_fit(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path, onnx="absent.onnx")
    for content in (b"", b"no graph", b"\x08\x07" * 50):
        (tmp_path / "bad.onnx").write_bytes(content)
        assert "is not an ONNX file that onnxruntime can run" in refusal(tmp_path, onnx="bad.onnx")
    export(linear(), tmp_path / "net.onnx", X[:2])
    assert "on rows of shape (5,) failed" in refusal(tmp_path, TABLE, onnx="net.onnx")

    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x.flatten(1)[:, :2], x.flatten(1)[:, :3]

    export(Two(), tmp_path / "two.onnx", X[:2], dynamic=False)
    assert "2 float32 outputs" in refusal(tmp_path, onnx="two.onnx")
    export(linear().double(), tmp_path / "double.onnx", X[:2].double())
    assert "float32" in refusal(tmp_path, onnx="double.onnx")


def test_weights_beside_an_onnx_file_count_for_its_digest(tmp_path: Path) -> None:
    export(linear(), tmp_path / "net.onnx", X[:2])
    first = made(tmp_path, onnx="net.onnx").provenance["weights"]
    (tmp_path / "net.onnx.data").write_bytes(b"weights")
    assert made(tmp_path, onnx="net.onnx").provenance["weights"] != first


def test_the_training_part_decides_and_not_the_data(tmp_path: Path) -> None:
    half = replace(samples(TABLE_X).take(list(range(20))))
    whole = made(tmp_path, TABLE, network="mlp").provenance["build"]
    part = build(ModelSpec(label="own", network="mlp"), TABLE, half, folder=tmp_path, seed=0).provenance["build"]
    assert whole != part
