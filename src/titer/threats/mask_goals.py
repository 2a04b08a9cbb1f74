"""What the attacker wants of a segmentation: a mask that no longer fits, a lesion missed, shrunk or moved.

Success is a count of pixels. The margin is the lead of the one pixel that decides it: the mask is won exactly where
that pixel is. Its gradient is taken over the pixels around it in rank, since one pixel's slope is no direction for
many (a kernel estimate of the quantile's slope, Parzen 1979, JASA 74, section 7).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from titer.core.outputs import dice

FOUND = 0.1
"""A lesion is missed where less than this share of its pixels is found."""

_BAND = 0.5
_ROUNDING = 1e-4
_SMALLEST = 1e-12


def pixel_leads(logits: Tensor, y: Tensor) -> Tensor:
    """Return how far each pixel's class y leads the best other one, float[N, H * W], for logits [N, K, H, W]."""
    return (_of(logits, y) - _others(logits, y).amax(1)).flatten(1)


def lead_of(logits: Tensor, label: int) -> Tensor:
    """Return how far one class leads the best other one in each pixel, float[N, H * W], for logits [N, K, H, W]."""
    others = torch.cat([logits[:, :label], logits[:, label + 1 :]], dim=1)
    return (logits[:, label] - others.amax(1)).flatten(1)


def log_error(logits: Tensor, y: Tensor) -> Tensor:
    """Return log(1 - p_y) of each pixel, float[N, H * W].

    Its slope is that of the log odds of an error while the pixel is right, and fades once it is wrong, so that pixels
    which are won already do not use up the budget (as SegPGD weighs them: Gu et al. 2022, arXiv:2207.12391, eq. 4).
    """
    odds = _others(logits, y).logsumexp(1) - _of(logits, y)
    return -functional.softplus(-odds).flatten(1)


def nth_largest(leads: Tensor, rank: Tensor) -> Tensor:
    """Return the value at `rank` int64[N] (0 is the largest) of each row of leads [N, P], float[N].

    Values of minus infinity do not count. The slope is the mean one of the values nearby, nearer ones weighing more.
    """
    with torch.no_grad():
        exact = leads.sort(1, descending=True).values.gather(1, rank.unsqueeze(1)).squeeze(1)
        counted = leads.isfinite()
        away = torch.where(counted, (leads - exact.unsqueeze(1)).abs(), 0.0)
        width = _BAND * away.sum(1, keepdim=True) / counted.sum(1, keepdim=True).clamp_min(1)
        weight = (-away / width.clamp_min(_SMALLEST)).masked_fill(~counted, -torch.inf).softmax(1)
    nearby = (weight * leads.masked_fill(~counted, 0.0)).sum(1)
    return nearby + (exact - nearby).detach()


@dataclass(frozen=True, slots=True)
class LowDice:
    """A mask whose Dice with the true one is below `limit`, where there is something to be found."""

    limit: float
    name: str

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the mean log probability that a pixel is wrong, float[N]; see `mask_error`."""
        return mask_error(logits, y)

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return by how much every pixel would have to be righted for the Dice to reach the limit, float[N]."""
        leads = pixel_leads(logits, y)
        return -nth_largest(leads, self._deciding(logits, leads, y))

    def won(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return bool[N]: there is a foreground, and the Dice is below the limit."""
        return (dice(logits.argmax(1), y) < self.limit) & self.applies(y)

    def applies(self, y: Tensor) -> Tensor:
        """Return bool[N]: there is a foreground."""
        return (y > 0).flatten(1).any(1)

    def _deciding(self, logits: Tensor, leads: Tensor, y: Tensor) -> Tensor:
        """Return the rank of the pixel that decides: the Dice reaches the limit once it and those above it are right.

        The Dice rises with each pixel that is righted, so that there is one such rank.
        """
        with torch.no_grad():
            order = leads.argsort(1, descending=True)
            truth = (y > 0).flatten(1)
            # A wrong pixel adds to the predicted area where the class in its place is no background.
            stray = (_others(logits, y).argmax(1) > 0).flatten(1)
            overlap = truth.gather(1, order).long().cumsum(1)
            strays = stray.gather(1, order).long()
            left = strays.sum(1, keepdim=True) - strays.cumsum(1)
            reached = 2.0 * overlap / (overlap + left + truth.sum(1, keepdim=True)).clamp_min(1)
            return (reached < self.limit).sum(1).clamp_max(leads.shape[1] - 1)


@dataclass(frozen=True, slots=True)
class Missed:
    """A lesion of one class of which less than a tenth of the pixels is found."""

    finding: int
    name: str

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the mean log probability that a pixel of the lesion is called something else, float[N]."""
        return _mean(log_error(logits, torch.full_like(y, self.finding)), (y == self.finding).flatten(1))

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return how far the pixel that decides is from being found, float[N]."""
        lesion = (y == self.finding).flatten(1)
        leads = lead_of(logits, self.finding).masked_fill(~_counted(lesion), -torch.inf)
        return -nth_largest(leads, _most_below(FOUND * lesion.sum(1)))

    def won(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return bool[N]: the lesion is there, and is missed."""
        lesion = (y == self.finding).flatten(1)
        found = ((logits.argmax(1) == self.finding).flatten(1) & lesion).sum(1)
        return (found <= _most_below(FOUND * lesion.sum(1))) & self.applies(y)

    def applies(self, y: Tensor) -> Tensor:
        """Return bool[N]: the lesion is there."""
        return (y == self.finding).flatten(1).any(1)


@dataclass(frozen=True, slots=True)
class Shrunk:
    """A foreground whose area is smaller than the true one by more than the share `by`."""

    by: float
    name: str

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the mean log probability that a pixel, wherever it lies, is background, float[N]."""
        return log_error(_foreground(logits), torch.ones_like(y)).mean(1)

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return how far the pixel that decides is from being foreground, float[N]."""
        return -nth_largest(-lead_of(logits, 0), self._allowed(y))

    def won(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return bool[N]: there is a foreground, and what is found has less than its area by the share."""
        return ((logits.argmax(1) > 0).flatten(1).sum(1) <= self._allowed(y)) & self.applies(y)

    def applies(self, y: Tensor) -> Tensor:
        """Return bool[N]: there is a foreground."""
        return (y > 0).flatten(1).any(1)

    def _allowed(self, y: Tensor) -> Tensor:
        return _most_below((1.0 - self.by) * (y > 0).flatten(1).sum(1))


@dataclass(frozen=True, slots=True)
class Moved:
    """A foreground whose centre of mass is more than `pixels` from the true one's; an empty mask has none."""

    pixels: float
    name: str

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the mean log probability of foreground ahead and background behind, float[N], by their arms.

        Ahead is where the mask has moved to already; where it has not, it is the farther side of the image.
        """
        with torch.no_grad():
            arm = (self._offsets(y) * self._ahead(logits, y).unsqueeze(1)).sum(2)
        two = _foreground(logits)
        ahead, behind = (log_error(two, torch.full_like(y, label)) for label in (0, 1))
        gain = torch.where(arm > 0, ahead, behind) * arm.abs()
        return gain.sum(1) / arm.abs().sum(1).clamp_min(_SMALLEST)

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return by how many pixels the distance of the centres passes `pixels`, float[N]; its slope is the loss's."""
        with torch.no_grad():
            moved = self._moved(logits, y)
            exact = torch.linalg.vector_norm(moved.nan_to_num(0.0), dim=1) - self.pixels
        loss = self.loss(logits, y)
        value: Tensor = loss + (exact - loss).detach()
        return value

    def won(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return bool[N]: both masks have a centre, and they are farther apart."""
        distance: Tensor = torch.linalg.vector_norm(self._moved(logits, y), dim=1)
        return distance > self.pixels

    def applies(self, y: Tensor) -> Tensor:
        """Return bool[N]: there is a foreground."""
        return (y > 0).flatten(1).any(1)

    def _offsets(self, y: Tensor) -> Tensor:
        """Return where each pixel lies from the true centre, float[N, H * W, 2], in pixels."""
        places = _places(y)
        return places - _centre(places, y > 0).nan_to_num(0.0).unsqueeze(1)

    def _moved(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return from the true centre to the predicted one, float[N, 2]; NaN where a mask is empty."""
        places = _places(y)
        return _centre(places, logits.argmax(1) > 0) - _centre(places, y > 0)

    def _ahead(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the direction of the move, float[N, 2]; only its sense matters."""
        moved = self._moved(logits, y).nan_to_num(0.0)
        inwards = self._offsets(y).mean(1)
        still = (moved == 0).all(1, keepdim=True)
        sideways = torch.tensor([0.0, 1.0], device=y.device).expand_as(moved)
        inwards = torch.where((inwards == 0).all(1, keepdim=True), sideways, inwards)
        return torch.where(still, inwards, moved)


def mask_error(logits: Tensor, y: Tensor) -> Tensor:
    """Return the mean log probability that a pixel is wrong, float[N]: half of it of the foreground's pixels.

    Both are needed for a low Dice, and a lesion is small: without the halves the background would drown it.
    """
    wrong, lesion = log_error(logits, y), (y > 0).flatten(1)
    return 0.5 * _mean(wrong, lesion) + 0.5 * _mean(wrong, ~lesion)


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean of each row's chosen values, float[N]; 0 where none is."""
    return (values * chosen).sum(1) / chosen.sum(1).clamp_min(1)


def _of(logits: Tensor, y: Tensor) -> Tensor:
    return logits.gather(1, y.unsqueeze(1)).squeeze(1)


def _others(logits: Tensor, y: Tensor) -> Tensor:
    return logits.scatter(1, y.unsqueeze(1), -torch.inf)


def _foreground(logits: Tensor) -> Tensor:
    """Return logits [N, 2, H, W] of background and of any class of the foreground."""
    return torch.stack([logits[:, 0], logits[:, 1:].logsumexp(1)], dim=1)


def _counted(lesion: Tensor) -> Tensor:
    """Return which pixels count, bool[N, P]: the lesion's; all of a row that has none, to which no goal applies."""
    return lesion | ~lesion.any(1, keepdim=True)


def _most_below(limit: Tensor) -> Tensor:
    """Return the largest whole number below each limit, int64[N], at least 0; float32's rounding is no difference."""
    return ((limit - _ROUNDING).ceil() - 1).clamp_min(0).long()


def _places(y: Tensor) -> Tensor:
    """Return where the pixels lie, float[H * W, 2]."""
    sides = [torch.arange(side, device=y.device, dtype=torch.float32) for side in y.shape[1:]]
    return torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1).flatten(0, -2)


def _centre(places: Tensor, mask: Tensor) -> Tensor:
    """Return the centre of mass of each mask bool[N, H, W], float[N, 2]; NaN where it is empty."""
    inside = mask.flatten(1).float()
    return (inside @ places) / inside.sum(1, keepdim=True)
