"""What every test shares: one thread, no touching of the user's cache, tiny models, threats and data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

from titer.core.lexicon import WordEmbedding
from titer.core.model import Model, network_model
from titer.core.protocols import TrainingData
from titer.core.record import Recipe, Samples
from titer.core.threat import Access, Goal, Region, Threat
from titer.threats.balls import ball
from titer.threats.goals import AnyError
from titer.threats.rules import Box, MutableMask, ordered
from titer.threats.words import Substitutes

torch.set_num_threads(1)
settings.register_profile("titer", deadline=None, derandomize=True, database=None)
settings.load_profile("titer")

SIDE = 8
TABLE_SCALE = torch.tensor([1.0, 2.0, 0.0, 0.5, 1.5, 3.0])
"""Of six features; the third never varies. Feature 4 is never below 0, feature 5 never below 1."""


@pytest.fixture(scope="session")
def titer_data() -> Iterator[Path]:
    """The directory of data sets."""
    named = os.environ.get("TITER_DATA")
    path = (Path(__file__).parents[1] / (named or "../shared/data")).resolve()  # tests change their directory
    if not path.is_dir():
        pytest.skip("TITER_DATA is not set and ../shared/data does not exist")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TITER_DATA", str(path))
        yield path


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TITER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def _linear_model(weights: Tensor, bias: Tensor | float = 0.0, **fields: object) -> Model:
    net = nn.Sequential(nn.Flatten(), nn.Linear(weights.shape[1], weights.shape[0]))
    with torch.no_grad():
        net[1].weight.copy_(weights)
        net[1].bias.copy_(torch.as_tensor(bias).expand(weights.shape[0]))
    model = network_model("linear", net, lambda x: x, {})
    return Model(name="linear", logits=model.logits, net=model.net, rebuild=model.rebuild, **fields)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def linear_model() -> Callable[..., Model]:
    """Make a linear model of weights [K, D] and bias [K]."""
    return _linear_model


@pytest.fixture(scope="session")
def free_threat() -> Callable[..., Threat]:
    """Make a threat without any rule but the budget."""

    def make(norm: str, eps: float, scale: Tensor | float = 1.0, goal: Goal | None = None) -> Threat:
        budget = ball(norm, eps, torch.as_tensor(scale), "unit")
        return Threat(family=norm, budget=budget, domain=(), goal=goal or AnyError())

    return make


@pytest.fixture(scope="session")
def image_threat() -> Callable[..., Threat]:
    """Make a threat on images of grey levels 0 to 255; with `mask`, only the upper half may change."""

    def make(norm: str, eps: float, *, mask: bool = False, access: Access = "gradient") -> Threat:
        domain: tuple[Region, ...] = (Box(low=0.0, high=255.0),)
        if mask:
            upper = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
            upper[:, : SIDE // 2] = True
            domain = (*domain, MutableMask(mask=upper))
        budget = ball(norm, eps, torch.tensor(1.0), "grey level")
        return Threat(family=norm, budget=budget, domain=domain, goal=AnyError(), access=access)

    return make


@pytest.fixture(scope="session")
def table_threat() -> Callable[..., Threat]:
    """Make a threat on tables of six non-negative features, two pairs of them ordered."""

    def make(norm: str, eps: float, *, access: Access = "gradient") -> Threat:
        domain = (Box(low=0.0, high=float("inf")), ordered((0, 1), (4, 5), "worst is at least mean"))
        budget = ball(norm, eps, TABLE_SCALE, "sd")
        return Threat(family=norm, budget=budget, domain=domain, goal=AnyError(), access=access)

    return make


WORDS = 40
"""Words of the toy notes: 1 to 10 speak for one class, 11 to 20 for the other, 21 to 40 for neither."""


@pytest.fixture(scope="session")
def word_rule() -> Region:
    """What the toy's words may become: two neutral words each, and of every third one a word of the other class."""
    table = torch.zeros(WORDS + 1, 3, dtype=torch.int64)
    for word in range(1, 21):
        table[word] = torch.tensor([word + 20, 41 - word, (word + 9) % 20 + 1 if word % 3 == 0 else 0])
    return Substitutes(table=table, text="toy substitutes")


@pytest.fixture(scope="session")
def note_threat(word_rule: Region) -> Callable[..., Threat]:
    """Make a threat on toy notes of words."""

    def make(eps: float, unit: str = "words", *, access: Access = "gradient") -> Threat:
        budget = ball("l0", eps, torch.tensor(1.0), unit)
        return Threat(family="words", budget=budget, domain=(word_rule,), goal=AnyError(), access=access)

    return make


class ToyReader(nn.Module):
    """The mean of a note's word vectors, through a small perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.words = WordEmbedding(WORDS + 1, 8)
        self.words.tell(torch.arange(WORDS + 1).unsqueeze(1))
        self.answer = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))

    def forward(self, x: Tensor) -> Tensor:
        count = (x > 0).sum(1, keepdim=True).clamp_min(1)
        out: Tensor = self.answer(self.words(x).sum(1) / count)
        return out


def _note_rows(count: int, seed: int) -> Samples:
    """Notes of 12 to 20 words, of which a few more speak for the note's class than for the other."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 2
    own = torch.randint(1, 11, (count, 20), generator=rng) + 10 * y.unsqueeze(1)
    other = torch.randint(1, 11, (count, 20), generator=rng) + 10 * (1 - y).unsqueeze(1)
    drawn = torch.rand((count, 20), generator=rng)
    neither = torch.randint(21, 41, (count, 20), generator=rng)
    x = torch.where(drawn < 0.4, own, torch.where(drawn < 0.6, other, neither)).float()
    length = torch.randint(12, 21, (count, 1), generator=rng)
    return _samples(x.masked_fill(torch.arange(20) >= length, 0.0), y)


def _samples(x: Tensor, y: Tensor) -> Samples:
    ids = tuple(f"row-{i}" for i in range(len(x)))
    return Samples(x=x, y=y, ids=ids, patients=ids)


def _image_rows(count: int, seed: int) -> Samples:
    """Images whose classes differ by 12 grey levels in each pixel, under noise of 20: easy, and fragile."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 2
    pattern = torch.where(torch.arange(SIDE * SIDE) % 3 == 0, 6.0, -6.0).view(1, 1, SIDE, SIDE)
    noise = 20 * torch.randn((count, 1, SIDE, SIDE), generator=rng)
    return _samples((128 + (2 * y - 1).view(-1, 1, 1, 1) * pattern + noise).clamp(0, 255), y)


def _table_rows(count: int, seed: int) -> Samples:
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 2
    x = 10 + TABLE_SCALE * (0.7 * torch.randn((count, 6), generator=rng) + (2 * y - 1).unsqueeze(1))
    x[:, 4:] = x[:, :2] + x[:, 4:].abs()
    return _samples(x.abs(), y)


@dataclass(frozen=True)
class Toy:
    """A model trained in a second, its data, and rows it has not seen."""

    model: Model
    data: TrainingData
    test: Samples


def _toy(rows: Callable[[int, int], Samples], net: nn.Module, **fields: object) -> Toy:
    from titer.training.loop import CrossEntropy, fit

    recipe = Recipe(epochs=15, batch_size=64, learning_rate=1e-2)
    data = TrainingData(train=rows(400, 1), validation=rows(100, 2), classes=2, recipe=recipe, **fields)  # type: ignore[arg-type]
    mean, sd = data.train.x.mean(0), data.train.x.std(0).clamp_min(1e-3)
    read = any(isinstance(part, WordEmbedding) for part in net.modules())
    start = network_model("toy", net, (lambda x: x) if read else (lambda x: (x - mean) / sd), {})
    assert start.net is not None
    return Toy(fit(start, start.net, data, CrossEntropy(), seed=0), data, rows(100, 3))


@pytest.fixture(scope="session")
def images() -> Toy:
    """A fragile network on 1 x 8 x 8 images of grey levels."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 32), nn.ReLU(), nn.Linear(32, 2))
    units = {"grey level": torch.tensor(1.0)}
    return _toy(_image_rows, net, units=units, domain=(Box(low=0.0, high=255.0),), value_range=(0.0, 255.0))


@pytest.fixture(scope="session")
def tables() -> Toy:
    """A network on tables of six features with rules."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))
    rules = (Box(low=0.0, high=float("inf")), ordered((0, 1), (4, 5), "worst is at least mean"))
    return _toy(_table_rows, net, units={"sd": TABLE_SCALE}, domain=rules)


@pytest.fixture(scope="session")
def conv_images() -> Toy:
    """A fragile convolutional network on 1 x 8 x 8 images of grey levels."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 4 * 4, 2),
    )  # fmt: skip
    units = {"grey level": torch.tensor(1.0)}
    return _toy(_image_rows, net, units=units, domain=(Box(low=0.0, high=255.0),), value_range=(0.0, 255.0))


@pytest.fixture(scope="session")
def notes(word_rule: Region) -> Toy:
    """A network on notes of words."""
    torch.manual_seed(0)
    units = {"words": torch.tensor(1.0), "% of words": torch.tensor(1.0)}
    return _toy(_note_rows, ToyReader(), units=units, domain=(word_rule,))
