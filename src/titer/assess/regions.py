"""The rules that one threat asks for: named ones of the data set, features, a mask."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from titer.assess.plan import ThreatPlan
from titer.core.errors import SpecError
from titer.core.record import ClinicalData, Samples
from titer.core.threat import Estimated, Region
from titer.threats.rules import MutableMask


def asked(plan: ThreatPlan, data: ClinicalData, folder: Path, train: Samples) -> tuple[Region, ...]:
    """Return the rules of one threat beside those that always hold: by name, by features, by a mask in a file.

    A rule that is estimated from data is estimated from the training part.

    Raises:
        SpecError: the mask is no file, or not of the rows' shape.
    """
    named = [data.rules[name] for name in plan.rules]
    known = [one.fitted(train.x) if isinstance(one, Estimated) else one for one in named]
    # What rounds comes last: no other rule would keep values whole.
    masks: list[Region] = sorted(known, key=lambda rule: getattr(rule, "rounds", False))
    shape = next(iter(data.parts().values())).x.shape[1:]
    if plan.features is not None:
        names = data.feature_names or ()
        chosen = torch.tensor([name in plan.features for name in names])
        masks.append(MutableMask(mask=chosen, text=f"only {', '.join(plan.features)} may change"))
    if plan.mask is not None:
        path = folder / plan.mask
        if not path.is_file():
            raise SpecError(f"threats.{plan.label}.mask = {plan.mask!r}: no such file")
        try:
            array = np.load(path, allow_pickle=False)
            chosen = torch.from_numpy(np.broadcast_to(array.astype(bool), tuple(shape)).copy())
        except (ValueError, OSError) as error:
            raise SpecError(
                f"threats.{plan.label}.mask = {plan.mask!r} is not a .npy array of shape {tuple(shape)}: {error}"
            ) from None
        masks.append(
            MutableMask(
                mask=chosen, text=f"only values under the mask {plan.mask} may change (sha256 {_short_digest(path)})"
            )
        )
    return tuple(masks)


def _short_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
