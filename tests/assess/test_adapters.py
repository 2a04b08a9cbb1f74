"""What networks and files may return for each kind of output, and what becomes of it."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from titer.assess.models import ModelSpec, build
from titer.assess.probe import Probe
from titer.core.errors import SpecError
from titer.core.model import Model
from titer.core.outputs import Output
from titer.core.record import ClinicalData, Samples
from titer.threats.naming import any_error

X = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))
Y: dict[Output, Tensor] = {
    "classes": torch.arange(12) % 2,
    "labels": torch.stack([torch.arange(12) % 2, torch.arange(12) % 3 == 0, torch.arange(12) % 4 == 0], 1).long(),
    "value": 100 + 20 * torch.linspace(-1, 1, 12),
    "mask": (X[:, 0] > 0.5).long(),
}
NAMES: dict[Output, tuple[str, ...]] = {
    "classes": ("no", "yes"), "labels": ("a", "b", "c"), "value": ("age",), "mask": ("background", "lesion"),
}  # fmt: skip
CODE = """
import torch
from torch import nn


class Head(nn.Module):
    def __init__(self, shape, chances, far):
        super().__init__()
        torch.manual_seed(1)
        self.shape, self.chances, self.far = shape, chances, far
        self.line = nn.Linear(16, int(torch.tensor(shape or [1]).prod()))

    def forward(self, x):
        out = self.far + self.line(x.flatten(1)).reshape(-1, *self.shape)
        if self.chances:
            return torch.sigmoid(out) if self.chances == "each" else out.softmax(1)
        return out


def build(shape=(1,), chances="", far=0.0):
    return Head(tuple(shape), chances, far)
"""


def _data(output: Output) -> ClinicalData:
    ids = tuple(map(str, range(12)))
    return ClinicalData(
        name="fake", title="", kind="image", source="", licence="", classes=NAMES[output], positive=None,
        pool=Samples(x=X, y=Y[output], ids=ids, patients=ids), fixed={}, domain=(), units={}, value_range=(0.0, 1.0),
        output=output, tolerance=5.0 if output == "value" else None,
    )  # fmt: skip


def _made(folder: Path, kind: Output, **keys: object) -> Model:
    (folder / "heads.py").write_text(CODE)
    settings = {name: keys.pop(name) for name in ("shape", "chances", "far") if name in keys}
    if "onnx" not in keys:
        keys = {"network": {"name": "heads:build", **settings}, "preprocess": "none", **keys}
    data = _data(kind)
    assert data.pool is not None
    return build(ModelSpec(label="own", **keys), data, data.pool, folder=folder, seed=0, where="models.own")  # type: ignore[arg-type]


def _raw(model: Model) -> Tensor:
    """Return what the user's own network gave."""
    assert model.net is not None
    inner: nn.Module = getattr(model.net, "net", model.net)
    out: Tensor = inner(X)
    return out


@pytest.mark.parametrize("shape", [[1], []])
def test_one_logit_is_that_of_yes_beside_a_no_of_zero(tmp_path: Path, shape: list[int]) -> None:
    model = _made(tmp_path, "classes", shape=shape)
    logits = model.logits(X)
    assert logits.shape == (12, 2)
    assert torch.equal(logits[:, 1], _raw(model).reshape(-1))
    assert bool((logits[:, 0] == 0).all())
    torch.testing.assert_close(logits.softmax(1)[:, 1], torch.sigmoid(_raw(model).reshape(-1)))


def test_one_probability_is_that_of_yes(tmp_path: Path) -> None:
    model = _made(tmp_path, "classes", shape=[1], chances="each", output="probabilities")
    torch.testing.assert_close(model.logits(X).softmax(1)[:, 1], _raw(model)[:, 0])


def test_one_logit_of_a_file_is_told_like_that_of_a_network(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    for chances, output in (("", "logits"), ("each", "probabilities")):
        network = _made(tmp_path, "classes", shape=[1], chances=chances, output=output)
        assert network.net is not None
        inner = network.net.net
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the exporter that needs no onnxscript is the old one
            axes = {"x": {0: "n"}}
            torch.onnx.export(inner, (X,), tmp_path / "one.onnx", dynamo=False, input_names=["x"], dynamic_axes=axes)
        file = _made(tmp_path, "classes", onnx="one.onnx", output=output, preprocess="none")
        torch.testing.assert_close(file.logits(X), network.logits(X), atol=1e-5, rtol=1e-4)
        assert file.access == "scores"


def test_attacks_need_nothing_special_for_one_logit(tmp_path: Path) -> None:
    model = _made(tmp_path, "classes", shape=[1])
    slope = model.grad(lambda logits: any_error("classes").loss(logits, Y["classes"]), X)
    signs = torch.where(Y["classes"] > 0, -1.0, 1.0).view(-1, 1, 1, 1)
    torch.testing.assert_close(slope * signs, slope[:1].abs() * slope[:1].sign() * signs[0] + 0 * slope)


def test_findings_have_a_logit_each(tmp_path: Path) -> None:
    model = _made(tmp_path, "labels", shape=[3])
    assert model.output == "labels"
    assert torch.equal(model.logits(X), _raw(model))
    chances = _made(tmp_path, "labels", shape=[3], chances="each", output="probabilities")
    torch.testing.assert_close(torch.sigmoid(chances.logits(X)), _raw(chances))


def test_a_value_is_in_its_unit_before_it_is_trained(tmp_path: Path) -> None:
    model = _made(tmp_path, "value", shape=[])
    values = model.logits(X)
    assert values.shape == (12, 1)
    assert 60 < float(values.mean()) < 140
    assert {"target_mean", "target_sd"} <= {name.rsplit(".")[-1] for name in dict(model.net.named_buffers())}  # type: ignore[union-attr]


def test_masks_have_a_logit_a_class_and_pixel_or_one_for_two_classes(tmp_path: Path) -> None:
    full = _made(tmp_path, "mask", shape=[2, 4, 4])
    assert torch.equal(full.logits(X), _raw(full))
    for shape in ([1, 4, 4], [4, 4]):
        one = _made(tmp_path, "mask", shape=shape)
        assert one.logits(X).shape == (12, 2, 4, 4)
        assert torch.equal(one.logits(X)[:, 1], _raw(one).reshape(12, 4, 4))
    soft = _made(tmp_path, "mask", shape=[2, 4, 4], chances="all", output="probabilities")
    torch.testing.assert_close(soft.logits(X).softmax(1), _raw(soft))


@pytest.mark.parametrize(
    ("kind", "keys", "said"),
    [
        ("classes", {"shape": [3]}, "allowed is a float tensor [2, 2], one logit a class, or [2, 1], the second"),
        ("classes", {"shape": [1], "output": "probabilities", "far": 9.0}, "probabilities are between 0 and 1"),
        ("labels", {"shape": [2]}, "allowed is a float tensor [2, 3], one logit a finding"),
        ("labels", {"shape": [3], "output": "probabilities"}, "probabilities are between 0 and 1"),
        ("value", {"shape": [2]}, "allowed is a float tensor [2, 1], the value in the label's unit"),
        ("value", {"shape": [1], "output": "probabilities"}, "a value has none; allowed is 'logits'"),
        ("mask", {"shape": [2]}, "tensor [2, 2, 4, 4], one logit a class and pixel, or [2, 1, 4, 4]"),
        ("mask", {"shape": [2, 4, 4], "chances": "all"}, "set output = 'probabilities'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_data_says_what_does(
    tmp_path: Path, kind: Output, keys: dict[str, object], said: str
) -> None:
    with pytest.raises(SpecError) as caught:
        _made(tmp_path, kind, **keys)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_endpoint_of_masks_is_refused_before_it_is_asked(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="endpoint is not allowed with access = 'scores' for data whose task is 'mask'"):
        _made_endpoint(tmp_path)


def _made_endpoint(folder: Path) -> Model:
    data = _data("mask")
    assert data.pool is not None
    spec = ModelSpec(label="own", endpoint={"url": "http://127.0.0.1:9", "model": "m"})
    return build(spec, data, data.pool, folder=folder, seed=0, where="models.own")


def test_the_probe_knows_the_kind_of_output() -> None:
    probe = Probe(rows=X[:2], classes=1, seed=0, output="value")
    probe.check(lambda x: x.flatten(1).sum(1), "logits", "here")
    with pytest.raises(SpecError, match=r"here returns torch\.float32 \[2, 16\]"):
        probe.check(lambda x: x.flatten(1), "logits", "here")
