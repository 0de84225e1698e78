"""Networks as people have them, each odd in one way: 16 features of images of 16 pixels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

SIDE, FEATURES = 16, 16


class Base(nn.Module):
    """Two convolutions with BatchNorm, and the mean over places."""

    num_features = FEATURES

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.second, self.last_norm = nn.Conv2d(8, FEATURES, 3, 2, 1), nn.BatchNorm2d(FEATURES)

    def maps(self, images: Tensor) -> Tensor:
        return torch.relu(self.last_norm(self.second(torch.relu(self.norm(self.first(images))))))

    def forward(self, images: Tensor) -> Tensor:
        return self.maps(images).mean((2, 3))


class Block(nn.Module):
    """A convolution and its BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(FEATURES, FEATURES, 3, 1, 1), nn.BatchNorm2d(FEATURES)

    def forward(self, maps: Tensor) -> Tensor:
        return torch.relu(self.norm(self.convolution(maps)))


class Alias(Base):
    """Layers under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(self.first, self.norm, self.second, self.last_norm)

    def maps(self, images: Tensor) -> Tensor:
        return self.body(images)


class Twice(Base):
    """A block at two places of the tree."""

    def __init__(self) -> None:
        super().__init__()
        block = Block()
        self.one, self.other = nn.Sequential(block), nn.Sequential(block)

    def maps(self, images: Tensor) -> Tensor:
        return self.other(self.one(super().maps(images)))


class TwoNames(Base):
    """A BatchNorm under two names of one parent, called by both."""

    def __init__(self) -> None:
        super().__init__()
        self.again = self.last_norm

    def maps(self, images: Tensor) -> Tensor:
        return self.again(super().maps(images))


class TiedWeights(Base):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, FEATURES)
        self.other.weight = self.one.weight

    def forward(self, images: Tensor) -> Tensor:
        return self.other(self.one(super().forward(images)))


class ViewOfBuffer(Base):
    """Buffers that are parts of one storage."""

    def __init__(self) -> None:
        super().__init__()
        table = torch.rand(2, FEATURES)
        self.register_buffer("scale", table[0])
        self.register_buffer("shift", table[1])

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * self.scale + self.shift


class Listed(Base):
    """BatchNorm called through a plain list, which no conversion sees."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = [self.first, self.norm, self.second, self.last_norm]

    def maps(self, images: Tensor) -> Tensor:
        for step in self.steps:
            images = step(images)
        return images


class Tokens(Base):
    """BatchNorm over the patches of an image, one after another."""

    def __init__(self) -> None:
        super().__init__()
        self.token_norm = nn.BatchNorm1d(FEATURES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.maps(images).flatten(2).transpose(1, 2)
        return self.token_norm(tokens.flatten(0, 1)).reshape(tokens.shape).mean(1)


class TokensFirst(Tokens):
    """The same, and the rows of an image are not one after another."""

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.maps(images).flatten(2).permute(2, 0, 1)
        return self.token_norm(tokens.flatten(0, 1)).reshape(tokens.shape).mean(0)


class View(Base):
    """A view of a feature map, which needs contiguous memory."""

    num_features = FEATURES * 16

    def forward(self, images: Tensor) -> Tensor:
        maps = self.maps(images)
        return maps.view(len(maps), -1)


class ViewInTraining(Base):
    """The same in training mode only."""

    def forward(self, images: Tensor) -> Tensor:
        maps = self.maps(images)
        return maps.view(len(maps), FEATURES, -1).mean(2) if self.training else maps.mean((2, 3))


class Stash(Base):
    """Keeps its last feature map, and a list and a dictionary of others."""

    def forward(self, images: Tensor) -> Tensor:
        self.last = self.maps(images)
        self.seen, self.named = [self.last.mean()], {"deep": (self.last.amax(),)}
        return self.last.mean((2, 3))


class Squeeze(Base):
    """squeeze() takes the batch away where it is one image."""

    def forward(self, images: Tensor) -> Tensor:
        return self.maps(images).mean((2, 3), keepdim=True).squeeze()


class InPlace(Base):
    """Changes its input."""

    def maps(self, images: Tensor) -> Tensor:
        return super().maps(images.sub_(0.1).mul_(2.0))


class TupleInTraining(Base):
    """An auxiliary output in training mode."""

    def forward(self, images: Tensor):
        features = super().forward(images)
        return (features, features[:, :4]) if self.training else features


class Both(NamedTuple):
    """A named tuple."""

    embedding: Tensor
    logits: Tensor


class Named(Base):
    """A named tuple always."""

    def forward(self, images: Tensor):
        features = super().forward(images)
        return Both(features, features[:, :4])


class Dictionary(Base):
    """A dictionary."""

    def forward(self, images: Tensor):
        return {"embedding": super().forward(images)}


@dataclass
class Output:
    """A dataclass, as transformers has."""

    embedding: Tensor


class Structured(Base):
    """A dataclass."""

    def forward(self, images: Tensor):
        return Output(super().forward(images))


class Unpooled(Base):
    """A feature map."""

    def forward(self, images: Tensor) -> Tensor:
        return self.maps(images)


class LazyNorm(Base):
    """A lazy BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LazyBatchNorm2d()


class ExtraState(Base):
    """A dictionary in its state."""

    def get_extra_state(self):
        return {"version": 3}

    def set_extra_state(self, state) -> None:
        pass


class SparseBuffer(Base):
    """A sparse buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("adjacency", torch.eye(4).to_sparse())


class NaNBuffer(Base):
    """A threshold that is not set yet."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("threshold", torch.tensor(float("nan")))


class Counting(Base):
    """Counts its calls, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(images)


class Recounting(Counting):
    """Counts its calls by another buffer each time."""

    def forward(self, images: Tensor) -> Tensor:
        self.calls = self.calls + 1
        return Base.forward(self, images)


class AlwaysTraining(Base):
    """BatchNorm that no ``eval()`` reaches."""

    def train(self, mode: bool = True) -> AlwaysTraining:
        super().train(mode)
        self.norm.train()
        return self


class Complex(Base):
    """Complex numbers."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.fft.fft(super().forward(images))


class Sparse(Base):
    """A sparse tensor."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).to_sparse()


class Ending(Base):
    """Ends the program."""

    def forward(self, images: Tensor) -> Tensor:
        raise SystemExit(3)


class Unfinished(Base):
    """Lacks something."""

    def forward(self, images: Tensor) -> Tensor:
        raise KeyError("weights")


class Unregistered(Base):
    """Weights that no state holds: every call of the factory makes another network."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = torch.randn(FEATURES, FEATURES)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) @ self.projection


class NoGradient(Base):
    """A feature extractor."""

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)


class FixedSize(Base):
    """Takes images of 24 pixels only."""

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] != 24:
            raise ValueError("expected images of 24 pixels")
        return super().forward(images)


def old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Base()
        model.first = nn.utils.weight_norm(model.first)
    return model


def new_weight_norm() -> nn.Module:
    model = Base()
    model.first = nn.utils.parametrizations.weight_norm(model.first)
    return model


def old_spectral_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Base()
        model.first = nn.utils.spectral_norm(model.first)
    return model


def new_spectral_norm() -> nn.Module:
    model = Base()
    model.first = nn.utils.parametrizations.spectral_norm(model.first)
    return model


def half() -> nn.Module:
    return Base().half()


def exported() -> nn.Module:
    batch = torch.export.Dim("batch", min=1, max=512)
    program = torch.export.export(Base().eval(), (torch.rand(12, 3, SIDE, SIDE),), dynamic_shapes=({0: batch},))
    return said(program.module())


def quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = nn.Sequential(Base(), nn.Linear(FEATURES, FEATURES))
        return said(torch.ao.quantization.quantize_dynamic(network, {nn.Linear}, dtype=torch.qint8))


def compiled() -> nn.Module:
    return said(torch.compile(Base(), backend="eager"))


def said(module: nn.Module) -> nn.Module:
    """With its number of features."""
    module.num_features = FEATURES
    return module


#: By name: its maker, what is said where it cannot be trained by ``st``, and by ``mdprop`` ("" where it can).
ODD_BACKBONES: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "layers under two names": (Alias, "", ""),
    "a block at two places": (Twice, "", ""),
    "one BatchNorm with two names": (TwoNames, "", ""),
    "two layers with one weight": (TiedWeights, "", ""),
    "buffers of one storage": (ViewOfBuffer, "", ""),
    "BatchNorm in a plain list": (Listed, "", "meet the BatchNorm of another kind"),
    "BatchNorm over patches": (Tokens, "", ""),
    "BatchNorm over patches, patches first": (TokensFirst, "", "meet the BatchNorm of another kind"),
    "a view of a feature map": (View, "", ""),
    "a view in training mode": (ViewInTraining, "", ""),
    "activations kept as attributes": (Stash, "", ""),
    "squeeze() on a batch of one": (Squeeze, "", ""),
    "in-place change of the input": (InPlace, "", ""),
    "old weight normalisation": (old_weight_norm, "", ""),
    "new weight normalisation": (new_weight_norm, "", ""),
    "old spectral normalisation": (old_spectral_norm, "", ""),
    "new spectral normalisation": (new_spectral_norm, "", ""),
    "a buffer of NaN": (NaNBuffer, "", ""),
    "a buffer that counts calls": (Counting, "", ""),
    "a buffer that is replaced": (Recounting, "", ""),
    "a tuple in training mode": (TupleInTraining, *["gives tuple of ("] * 2),
    "a named tuple": (Named, *["gives Both with embedding (2, 16), logits (2, 4) for 2 images"] * 2),
    "a dictionary": (Dictionary, *["gives dict with embedding (2, 16) for 2 images"] * 2),
    "a dataclass": (Structured, *["gives Output with embedding (2, 16) for 2 images"] * 2),
    "a feature map": (Unpooled, *["gives (2, 16, 4, 4) for 2 images in evaluation mode"] * 2),
    "a lazy layer": (LazyNorm, *["is a lazy layer's and has no shape yet"] * 2),
    "a dictionary in its state": (ExtraState, *["'backbone._extra_state' of the model's state is a dict"] * 2),
    "a sparse buffer": (SparseBuffer, *["is a torch.sparse_coo tensor, and a checkpoint holds dense"] * 2),
    "weights outside of its state": (Unregistered, *["gives other embeddings than"] * 2),
    "no gradient": (NoGradient, "", "gives no gradient of its images, which this method attacks"),
    "one input size": (FixedSize, *["cannot take images of 16 pixels (expected images of 24 pixels)"] * 2),
    "half precision": (half, *["cannot take images of 16 pixels"] * 2),
    "exported": (exported, "cannot be trained", "needs BatchNorm"),
    "quantised": (quantised, *["cannot be trained"] * 2),
    "compiled": (compiled, "", ""),
}


def __getattr__(name: str) -> Callable[[], nn.Module]:
    """``odd_backbones:number_3``: the factory of an entry, as a backbone's name can say it."""
    if not name.startswith("number_"):
        raise AttributeError(name)
    return list(ODD_BACKBONES.values())[int(name.removeprefix("number_"))][0]
