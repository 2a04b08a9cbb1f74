"""What every plugin of every shelf keeps: its words, its settings; clean data keep their own rules; networks build."""

import inspect
import re

import pytest
import torch

from titer.core.lexicon import ReadsWords
from titer.core.plugins import make
from titer.core.registry import SHELVES

PLUGINS = {f"{shelf}/{name}": plugin for shelf, plugins in SHELVES.items() for name, plugin in plugins.all().items()}
SHIPPED = [
    name
    for name, plugin in SHELVES["modalities"].all().items()
    if all(setting.default is not ... for setting in plugin.settings())
]
"""Modalities that need nothing from the user."""


@pytest.fixture(params=PLUGINS)
def plugin(request):
    return PLUGINS[request.param]


def test_its_docstring_names_every_setting(plugin):
    text = inspect.getdoc(plugin.factory) or ""
    assert plugin.title, "a plugin says what it is in one line"
    documented = set(re.findall(r"^\s+(\w+): \S", text.partition("Args:\n")[2], flags=re.MULTILINE))
    assert {one.name for one in plugin.settings()} == documented


def test_its_file_says_what_it_is(plugin):
    module = inspect.getmodule(plugin.factory)
    assert module is not None
    assert (inspect.getdoc(module) or "").strip()


def test_its_settings_are_keyword_only_and_typed(plugin):
    parameters = inspect.signature(plugin.factory).parameters.values()
    assert all(one.kind is inspect.Parameter.KEYWORD_ONLY for one in parameters)
    assert all(one.annotation is not inspect.Parameter.empty for one in parameters)
    assert all(one.kind not in ("Any", "") for one in plugin.settings())


def test_its_defaults_keep_their_own_limits(plugin):
    optional = {one.name: one.default for one in plugin.settings() if one.default is not ...}
    required = {one.name for one in plugin.settings()} - set(optional)
    if not required:
        assert plugin.check({}, "here") == plugin.check(optional, "here")


@pytest.mark.parametrize("name", SHIPPED)
def test_clean_data_keep_their_own_rules(name, titer_data):
    del titer_data
    data = make("modalities", name)()
    assert data.parts()
    ids, patients = set(), {}
    for part_name, part in data.parts().items():
        assert len(part) == len(part.x) == len(part.y) == len(part.patients) > 0
        assert part.x.dtype == torch.float32
        assert bool(part.x.isfinite().all())
        assert set(part.y.unique().tolist()) == set(range(len(data.classes)))
        for rule in data.domain:
            assert bool(rule.contains(part.x, part.x).all()), rule.describe()
        assert not ids & set(part.ids)
        ids |= set(part.ids)
        patients[part_name] = set(part.patients)
    names = list(patients)
    assert not any(patients[a] & patients[b] for i, a in enumerate(names) for b in names[i + 1 :])
    assert data.digest() == make("modalities", name)().digest()
    assert data.positive is None or 0 <= data.positive < len(data.classes)
    assert data.licence
    assert data.source


SIDES = {"ecg-cnn": (32,), "gru": (32,), "efficientnet-b0": (40, 40), "resnet3d": (8, 32, 32)}
"""Of networks that are for signals, volumes or larger images."""
CHANNELS = {"dermoscopy": (3,), "gradient-histograms": (1,)}
"""Of networks that are not for any number of them."""
CLASSES = {"anomaly-autoencoder": 2}
"""Of networks that are not for any number of them."""


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        (name, channels)
        for name, found in SHELVES["networks"].all().items()
        if all(setting.default is not ... for setting in found.settings())
        for channels in CHANNELS.get(name, (1, 3))
    ],
)
def test_every_network_builds_and_sends_a_gradient_back(name, channels):
    torch.manual_seed(0)
    sides, classes = SIDES.get(name, (32, 32)), CLASSES.get(name, 3)
    net = make("networks", name)((channels, *sides), classes).eval()
    if isinstance(net, ReadsWords):
        return  # tests/networks/test_note_transformer.py: word ids have no gradient
    x = torch.rand(2, channels, *sides, requires_grad=True)
    out = net(x)
    assert tuple(out.shape) in ((2, classes), (2, classes, *sides))
    assert bool(out.isfinite().all())
    assert bool((torch.autograd.grad(out.sum(), x)[0] != 0).any())
