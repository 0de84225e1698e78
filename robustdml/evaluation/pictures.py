"""Pictures for the report, as PNG bytes."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from torch import Tensor


def picture(image: Tensor) -> bytes:
    """An image ``(3, H, W)`` in [0, 1] as PNG, rounded to 8 bits for display; what was judged is not rounded."""
    pixels = (image.detach().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    return buffer.getvalue()


def amplification(eps: float) -> float:
    """The factor that makes a perturbation of eps full contrast around mid-grey; 1 where eps is 0."""
    return 0.5 / eps if eps else 1.0


def perturbation_picture(delta: Tensor, eps: float) -> bytes:
    """A signed perturbation ``(3, H, W)`` in [-eps, eps], multiplied by `amplification` around mid-grey."""
    return picture(delta * amplification(eps) + 0.5)
