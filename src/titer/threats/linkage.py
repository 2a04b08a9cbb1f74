"""What genotypes occur in a population: a changed site must be plausible alone, and with the sites linked to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

_SMALLEST = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkagePlausible:
    """A changed genotype occurs in the population, alone and together with its neighbours in linkage disequilibrium.

    Rows are alternate-allele dosages [N, D]. A pair of `neighbours` counts as linked where the squared correlation of
    its dosages over the people it is `fitted` on is at least `least_r2` (r2 of unphased genotypes, close to that of
    haplotypes: Rogers, Huff 2009, 10.1534/genetics.108.093153). A site is changed to a dosage, and a linked pair to a
    combination of dosages, only where at least the share `frequency` of these people carries it. A site without a
    linked neighbour is held to its own genotype frequencies alone. What is not changed is never judged.

    `common` bool[D, K] and `together` bool[P, K, K] say which dosages and which combinations of the pairs int64[P, 2]
    occur so often.
    """

    neighbours: tuple[tuple[int, int], ...]
    least_r2: float
    frequency: float
    common: Tensor
    pairs: Tensor
    together: Tensor
    text: str = ""
    shrinks: ClassVar[bool] = False

    def describe(self) -> str:
        """Return the rule as a sentence."""
        return self.text or (
            f"a changed genotype, alone and with each of its neighbours in linkage (r2 of at least {self.least_r2:g}; "
            f"{len(self.neighbours)} pairs are near enough), "
            f"is carried by at least {100 * self.frequency:g} % of the people of the training part"
        )

    def fitted(self, people: Tensor) -> LinkagePlausible:
        """Return the rule with linkage and frequencies of these people [M, D], in whole dosages."""
        states = self.common.shape[1]
        pairs = _linked(people, self.neighbours, self.least_r2)
        carried = torch.nn.functional.one_hot(people.long(), states).float()
        together = torch.einsum("mpi,mpj->pij", carried[:, pairs[:, 0]], carried[:, pairs[:, 1]]) / len(people)
        return replace(self, common=carried.mean(0) >= self.frequency, pairs=pairs, together=together >= self.frequency)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Put back every changed site that breaks the rule, until none does: at worst the clean row."""
        for _ in range(x.shape[1] + 1):
            broken = self._broken(x_adv, x)
            if not bool(broken.any()):
                break
            x_adv = torch.where(broken, x, x_adv)
        return x_adv

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return bool[N]; a fraction is judged as the whole number nearest to it."""
        return ~self._broken(x_adv, x).any(1)

    def _broken(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return bool[N, D]: changed sites whose genotype, or combination with a linked site, is too rare."""
        common, pairs, together = (one.to(x.device) for one in (self.common, self.pairs, self.together))
        changed, states = x_adv != x, common.shape[1]
        dosages = x_adv.nan_to_num().round().long().clamp(0, states - 1)
        known = common[torch.arange(x.shape[1], device=x.device), dosages]
        first, second = pairs[:, 0], pairs[:, 1]
        number = torch.arange(len(pairs), device=x.device)
        odd = ~together[number, dosages[:, first], dosages[:, second]]
        rare = torch.zeros_like(known).float()
        rare.index_add_(1, first, odd.float()).index_add_(1, second, odd.float())
        return changed & (~known | (rare > 0))


def linkage_plausible(
    people: Tensor, neighbours: tuple[tuple[int, int], ...], *, states: int, least_r2: float, frequency: float
) -> LinkagePlausible:
    """Return the rule fitted on people [M, D] whose dosages are below `states`."""
    blank = LinkagePlausible(
        neighbours=neighbours,
        least_r2=least_r2,
        frequency=frequency,
        common=torch.ones(people.shape[1], states, dtype=torch.bool),
        pairs=torch.empty(0, 2, dtype=torch.int64),
        together=torch.empty(0, states, states, dtype=torch.bool),
    )
    return blank.fitted(people)


def _linked(people: Tensor, neighbours: tuple[tuple[int, int], ...], least_r2: float) -> Tensor:
    """Return int64[P, 2], the neighbours whose dosages correlate with r2 of `least_r2` or more."""
    pairs = torch.tensor(neighbours, dtype=torch.int64).view(-1, 2)
    centred = people.double() - people.double().mean(0)
    first, second = centred[:, pairs[:, 0]], centred[:, pairs[:, 1]]
    spread = (first.square().sum(0) * second.square().sum(0)).clamp_min(_SMALLEST)
    return pairs[(first * second).sum(0).square() / spread >= least_r2]
