"""Provenance check: every row is compared with a manifest that was signed when the data were collected."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from titer.core.errors import Incompatible
from titer.core.extras import need
from titer.core.model import Model
from titer.core.plugins import cleaner
from titer.core.protocols import Cleaner, TrainingData
from titer.training.manifest import row_digests, signed_rows


@cleaner("provenance-check", paper="Ed25519: Josefsson, Liusvaara 2017, RFC 8032; sha256: FIPS 180-4")
def provenance_check() -> Cleaner:
    """Provenance check against a signed manifest.

    A row whose sha256 is not the signed one of its id is surely not as it was. It says nothing of rows that were
    poisoned before they were signed.
    """
    need("cryptography", "signing")

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Tensor:  # noqa: ARG001 - the rows alone are looked at
        if train.manifest is None:
            raise Incompatible("there is no signed manifest of the training part to compare it with")
        signed = signed_rows(train.manifest)
        rows = zip(train.train.ids, row_digests(train.train), strict=True)
        known = [signed.get(name) == found for name, found in rows]
        return torch.where(torch.tensor(known), 0.0, float("inf"))

    return run
