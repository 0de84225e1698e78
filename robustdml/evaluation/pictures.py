"""Pictures for the report, as PNG bytes."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from torch import Tensor

from robustdml.threat import ThreatModel

_THUMBNAIL = 96


def picture(image: Tensor) -> bytes:
    """An image ``(3, H, W)`` in [0, 1] as PNG, rounded to 8 bits for display; what was judged is not rounded."""
    pixels = (image.detach().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    return buffer.getvalue()


def thumbnail(image: Tensor) -> bytes:
    """An image ``(3, H, W)`` that nobody attacked as PNG of at most 96 pixels a side: results are shown small."""
    pixels = Image.open(io.BytesIO(picture(image)))
    pixels.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    pixels.save(buffer, "PNG")
    return buffer.getvalue()


def amplification(threat: ThreatModel, largest: float) -> float:
    """The factor that makes a perturbation full contrast around mid-grey; 1 where there is none.

    Under an L-infinity budget, a perturbation of eps becomes full contrast; else the largest change of the image does.

    Args:
        largest: the L-infinity norm of the perturbation.
    """
    scale = largest if threat.eps is None or threat.norm != "linf" else threat.eps
    return 0.5 / scale if scale else 1.0


def perturbation_picture(delta: Tensor, factor: float) -> bytes:
    """A signed perturbation ``(3, H, W)``, multiplied by its `amplification` around mid-grey."""
    return picture(delta * factor + 0.5)
