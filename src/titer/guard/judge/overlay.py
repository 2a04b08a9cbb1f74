"""A heat map drawn over the image that the model saw (Grad-CAM or SHAP), as PNG."""

from __future__ import annotations

import io

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from titer.core.errors import Incompatible
from titer.core.extras import need
from titer.core.plugins import make_explainer
from titer.engine.attention import decided_class
from titer.guard.judge.models import Loaded

SPECS: dict[str, str | dict[str, object]] = {"gradcam": "gradcam", "shap": {"name": "shap", "method": "kernel"}}
_SIDE = 512
_OPACITY = 0.5


def overlay(loaded: Loaded, row: Tensor, method: str = "gradcam") -> bytes:
    """Return a PNG of an explainer's attributions for the class that the model says, over a raw row [1, C, H, W].

    SHAP values are those of 49 pieces of the image, hidden or shown together (Kernel SHAP: it asks for scores alone, so
    that models without gradients have one too); what speaks against the class stays dark, as with Grad-CAM.

    Raises:
        Incompatible: the input is no image; of Grad-CAM: the model gives no gradients or has no convolution.
        SpecError: of SHAP: captum is not installed.
    """
    if row.dim() != 4:
        raise Incompatible("heat maps are drawn over images alone")
    with torch.no_grad():
        said = decided_class(loaded.model.output, loaded.model.logits(row))
    heat = make_explainer(SPECS[method])(loaded.model, row, said, rng=torch.Generator().manual_seed(0))
    return drawn(row[0].mean(0).numpy(), heat[0].mean(0).numpy(), loaded.pinned.bundle.input.value_range)


def drawn(grey: NDArray[np.float32], heat: NDArray[np.float32], value_range: tuple[float, float] | None) -> bytes:
    """Return the PNG of a heat map [H, W] over grey levels [H, W]; where it is hottest it hides half of them."""
    image = need("PIL.Image", "imaging")
    matplotlib = need("matplotlib", "imaging")
    low, high = value_range or (float(grey.min()), float(grey.max()))
    shade = np.clip((grey - low) / max(high - low, 1e-12), 0, 1)[..., None].repeat(3, 2)
    strength = np.clip(heat / max(float(heat.max()), 1e-12), 0, 1)
    colour = matplotlib.colormaps["inferno"](strength)[..., :3]
    weight = _OPACITY * strength[..., None]
    mixed = ((1 - weight) * shade + weight * colour) * 255
    scale = max(1, _SIDE // max(mixed.shape[:2]))
    picture = image.fromarray(mixed.round().astype(np.uint8))
    picture = picture.resize((picture.width * scale, picture.height * scale), image.Resampling.BILINEAR)
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return stream.getvalue()
