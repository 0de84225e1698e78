"""One BatchNorm branch per input distribution (AdvProp, Xie et al. 2020; MDProp, arXiv 2211.16253).

Clean and adversarial images have different feature statistics. A `MultiBatchNorm` layer keeps a full BatchNorm per
kind of image; all other weights are shared. Deployed, only one branch is used, and `fold` gives an ordinary model.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from torch import Tensor, cat, nn
from torch.nn.modules.batchnorm import _BatchNorm

from robustdml.branches import MOST_BRANCHES
from robustdml.errors import SpecError
from robustdml.models.weights import copied
from robustdml.values import brief

#: A batch's layout: (branch, number of rows) in order; None stands for all rows.
Layout = Sequence[tuple[str, int | None]]


class MultiBatchNorm(nn.Module):
    """A BatchNorm layer (1d, 2d or 3d) with several branches, of which one or more serve each forward pass.

    Args:
        layer: the layer to replace; it becomes the first branch, the others start as exact copies of it (affine
            parameters and running statistics: a branch that starts at mean 0, variance 1 beside trained weights would
            feed the first attacks garbage).
        branches: the names, the first being the default one.
    """

    def __init__(self, layer: _BatchNorm, branches: Sequence[str]) -> None:
        super().__init__()
        copies = [layer, *(copy.deepcopy(layer) for _ in branches[1:])]
        self.branches = nn.ModuleDict(dict(zip(branches, copies, strict=True)))
        self.layout: Layout = ((branches[0], None),)

    def forward(self, features: Tensor) -> Tensor:
        """Normalise ``features``, ``(N, C, …)``, each row through the branch that the layout gives it.

        Networks that normalise tokens or patches, ``(N * T, C)``, have T rows for each image, one after another.
        """
        if len(self.layout) == 1 and self.layout[0][1] is None:
            return self.branches[self.layout[0][0]](features)  # type: ignore[no-any-return]
        sizes = [size for _, size in self.layout]
        each, left = divmod(len(features), sum(size or 0 for size in sizes))
        if left:
            raise SpecError(f"a batch of {len(features)} rows does not fit the branch layout {list(self.layout)}")
        parts = features.split([each * (size or 0) for size in sizes])
        return cat([self.branches[name](part) for (name, _), part in zip(self.layout, parts, strict=True)])


def _layers(model: nn.Module) -> list[MultiBatchNorm]:
    return [module for module in model.modules() if isinstance(module, MultiBatchNorm)]


def _replace(model: nn.Module, old: type[nn.Module], new: object) -> nn.Module:
    """Replace, in place, every submodule of type ``old`` by ``new(submodule)``; the model itself if it is one.

    A submodule at several places, or under several names, is replaced once, and all of them get the same one.
    """
    done: dict[nn.Module, nn.Module] = {}

    def walk(module: nn.Module) -> nn.Module:
        if module in done:
            return done[module]
        if isinstance(module, old):
            done[module] = new(module)  # type: ignore[operator]
            return done[module]
        done[module] = module
        for name, child in list(module._modules.items()):
            if child is not None:
                setattr(module, name, walk(child))
        return module

    return walk(model)


def convert_to_multibn(model: nn.Module, branches: Sequence[str]) -> nn.Module:
    """Give every BatchNorm of ``model`` one branch per name, in place; return the model.

    Raises:
        SpecError: there is no model, it has no BatchNorm or has branches already, or the names are empty, too many, or
            repeat.
    """
    if not isinstance(model, nn.Module):
        raise SpecError(f"model={brief(model)} must be a torch module")
    if isinstance(branches, str):  # whose letters would be taken for names
        raise SpecError(f"branches='{branches}' must be a list of names, such as ('clean', 'stax')")
    if len(branches) > MOST_BRANCHES:  # each is another copy of every layer
        raise SpecError(f"a model has at most {MOST_BRANCHES} branches, and this one has {len(branches):,}")
    if not branches or len(set(branches)) != len(branches):
        raise SpecError(f"branch names must be present and distinct, got {brief(list(branches))}")
    if _layers(model):
        raise SpecError("the model has BatchNorm branches already: fold it to one branch first")
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise SpecError("the model has no BatchNorm layer to give branches to: choose a backbone with BatchNorm")
    return _replace(model, _BatchNorm, lambda layer: MultiBatchNorm(layer, branches))


def branch_names(model: nn.Module) -> tuple[str, ...]:
    """The branches of ``model``, the default one first; empty for an ordinary model."""
    layers = _layers(model)
    return tuple(layers[0].branches) if layers else ()


@contextmanager
def branch_layout(model: nn.Module, layout: Layout) -> Iterator[None]:
    """Within the block, send the rows of each batch through the branches of ``layout``; afterwards, as before.

    ``[("stax", None)]`` selects one branch for all rows; ``[("clean", 64), ("stax", 32)]`` splits each batch of 96.
    On a model without branches it has no effect.

    Raises:
        SpecError: the model has no branch of that name, or (in the forward pass) a batch does not fit the layout.
    """
    layers = _layers(model)
    names = branch_names(model)
    for name, _ in layout:
        if layers and name not in names:
            raise SpecError(f"no BatchNorm branch '{name}': the model has {', '.join(names)}")
    before = [layer.layout for layer in layers]
    for layer in layers:
        layer.layout = tuple(layout)
    handle = model.register_forward_pre_hook(partial(_check_rows, layout)) if layers else None
    try:
        yield
    finally:
        if handle:
            handle.remove()
        for layer, old in zip(layers, before, strict=True):
            layer.layout = old


def _check_rows(layout: Layout, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    sizes = [size for _, size in layout]
    if None not in sizes and inputs and len(inputs[0]) != sum(size or 0 for size in sizes):
        raise SpecError(f"a batch of {len(inputs[0])} rows does not fit the branch layout {list(layout)}")


def freeze_batchnorm(model: nn.Module) -> None:
    """Put every BatchNorm into evaluation mode and take its affine parameters out of training, in place."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval().requires_grad_(False)


def fold(model: nn.Module, branch: str) -> nn.Module:
    """A copy of ``model`` with ordinary BatchNorm layers, those of one branch; its embeddings are bit-equal.

    Raises:
        SpecError: the model has branches, but none of that name.
    """
    names = branch_names(model)
    if names and branch not in names:
        raise SpecError(f"no BatchNorm branch '{branch}': the model has {', '.join(names)}")
    return _replace(copied(model), MultiBatchNorm, lambda layer: layer.branches[branch])
