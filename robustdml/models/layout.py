"""How the numbers of images and weights lie in memory: channels last, wherever a network can work so."""

from __future__ import annotations

import torch

from robustdml.models.backbones import BACKBONES
from robustdml.models.embedding import EmbeddingModel
from robustdml.models.guard import kept_randomness
from robustdml.models.weights import KeptWeights


def lay_out(model: EmbeddingModel) -> torch.memory_format:
    """Bring the weights into the layout that is fastest for the network, and say which: images belong into it too.

    Convolutions are faster with channels last, on CPUs and on tensor cores. A network that takes ``view`` of a feature
    map cannot: whether one of other makers can is tried, in both modes. The model is in the mode of before afterwards.
    """
    model.to(memory_format=torch.channels_last)
    if model.config.backbone in BACKBONES or _works(model):
        return torch.channels_last
    model.to(memory_format=torch.contiguous_format)
    return torch.contiguous_format


def _works(model: EmbeddingModel) -> bool:
    images = torch.zeros(2, 3, *model.preprocessing.sides, device=model.mean.device).to(
        memory_format=torch.channels_last
    )
    kept, modes = KeptWeights(model), {module: module.training for module in model.modules()}
    try:
        with kept_randomness(model), torch.no_grad():
            for mode in (False, True):
                model.train(mode)(images)
    except RuntimeError as error:
        # Whatever else is wrong with it is wrong in the other layout too, and is said where it is first used.
        return "view" not in str(error)
    except Exception:
        return True
    finally:
        for module, training in modes.items():
            module.training = training
        kept.restore()
    return True
