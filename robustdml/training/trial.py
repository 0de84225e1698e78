"""One step, one checkpoint and one deployment of a network before the first image is read.

Whatever cannot be trained, saved, loaded or deployed is said in a second, and not after the last epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from robustdml.errors import RobustDMLError, SpecError, StorageError
from robustdml.models import (
    BACKBONES,
    EmbeddingModel,
    KeptWeights,
    branch_layout,
    branch_names,
    copied,
    evaluation_mode,
    fold,
    kept_randomness,
    load_checkpoint,
    save_checkpoint,
)
from robustdml.models.multibn import MultiBatchNorm

#: Images for each BatchNorm branch, and how far apart embeddings of length 1 may be that are said to be equal.
_ROWS, _SAME = 2, 1e-3
_ANOTHER_SEED = 20221116


def try_out(model: EmbeddingModel, layout: torch.memory_format, *, attacked: bool) -> None:
    """Take one step, write a checkpoint and read it, fold each BatchNorm branch; the model is as before afterwards.

    Args:
        model: with its branches.
        layout: of its images.
        attacked: whether it will be asked for gradients of images.

    Raises:
        SpecError: one of these fails, or gives other embeddings.
    """
    names = branch_names(model)
    name = model.config.backbone
    modes, kept = {module: module.training for module in model.modules()}, KeptWeights(model)
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    count = _ROWS * max(1, len(names))
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, *model.preprocessing.sides, generator=generator).to(
        model.mean.device, memory_format=layout
    )
    rows: list[tuple[str, int | None]] = [(branch, _ROWS) for branch in names] or [("", None)]
    try:
        with kept_randomness(model):
            torch.manual_seed(0)
            with _said(name, "cannot be trained"), branch_layout(model, rows):
                embeddings = model.train()(images)
                (embeddings * embeddings.new_tensor(range(1, embeddings.shape[1] + 1))).sum().backward()
            model.eval()
            if attacked:
                _check_gradient(model, images, name)
            if len(names) > 1:
                _tell_apart(model)
            with _said(name, "cannot be evaluated"), torch.no_grad():
                answers = [_asked(model, images, branch) for branch in names or ("",)]
            if len(names) > 1:
                _check_branches(model, images, rows, answers, name)
            with _said(name, "cannot be copied"):
                _compare(_asked(copied(model), images, (names or ("",))[0]), answers[0], name, "a copy of it")
            for branch, found in zip(names, answers, strict=False):
                with _said(name, f"cannot be deployed by branch '{branch}'"), torch.no_grad():
                    _compare(fold(model, branch)(images), found, name, f"the ordinary model of branch '{branch}'")
            # The networks of this package are known to come back from their files.
            if name not in BACKBONES:
                with _said(name, "cannot be saved and loaded"), TemporaryDirectory() as folder:
                    torch.manual_seed(_ANOTHER_SEED)  # What a network draws when it is made must be in its state.
                    save_checkpoint(model, Path(folder), {})
                    loaded = load_checkpoint(folder, trust_code=True).model.to(images.device)
                    for branch, found in zip(names or ("",), answers, strict=True):
                        _compare(_asked(loaded, images, branch), found, name, "what is loaded from its checkpoint")
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, gradient in gradients:
            parameter.grad = gradient
        kept.restore()


@contextmanager
def _said(name: str, what: str) -> Iterator[None]:
    try:
        yield
    except StorageError:  # of the folder for temporary files, and not of the backbone
        raise
    except RobustDMLError as error:
        raise SpecError(f"backbone '{name}' {what}: {error}") from None
    except Exception as error:  # Foreign networks may raise anything.
        text = " ".join(str(error).split())[:300]
        raise SpecError(
            f"backbone '{name}' {what} ({type(error).__name__}: {text}): change the network, or choose another "
            "--backbone or --method"
        ) from None


@torch.no_grad()
def _asked(model: nn.Module, images: Tensor, branch: str) -> Tensor:
    torch.manual_seed(0)
    with branch_layout(model, [(branch, None)]):
        found: Tensor = model(images)
    return found


def _compare(found: Tensor, expected: Tensor, name: str, what: str) -> None:
    if not torch.allclose(found, expected, atol=_SAME, rtol=0, equal_nan=True):
        raise SpecError(
            f"{what} gives other embeddings than '{name}' does: keep everything that its answers depend on in "
            "registered modules, parameters and buffers, and let evaluation mode draw no random numbers"
        )


def _check_gradient(model: nn.Module, images: Tensor, name: str) -> None:
    with evaluation_mode(model), torch.enable_grad():
        asked = images.clone().requires_grad_()
        with _said(name, "gives no gradient of its images, which this method attacks: take @torch.no_grad() out"):
            torch.autograd.grad(model(asked)[:, 0].sum(), asked)


@torch.no_grad()
def _tell_apart(model: nn.Module) -> None:
    """Give the branches, which begin as copies, weights and statistics of their own; the caller puts them back."""
    for layer in model.modules():
        if isinstance(layer, MultiBatchNorm):
            for number, branch in enumerate(layer.branches.values()):
                for tensor in (branch.running_mean, branch.bias):
                    if isinstance(tensor, Tensor):
                        tensor.add_(0.3 * number * torch.randn(tensor.shape).to(tensor))


def _check_branches(
    model: nn.Module, images: Tensor, rows: Sequence[tuple[str, int | None]], answers: Sequence[Tensor], name: str
) -> None:
    """Every image of a mixed batch goes through its own branch alone."""
    with _said(name, "cannot have a BatchNorm for each kind of image"), torch.no_grad():
        torch.manual_seed(0)
        with branch_layout(model, rows), _bypassed(model) as bypassed:
            mixed = model(images)
        own = [alone[number * _ROWS : (number + 1) * _ROWS] for number, alone in enumerate(answers)]
        if bypassed or not torch.allclose(mixed, torch.cat(own), atol=_SAME, rtol=0):
            raise SpecError(
                "in a batch of several kinds, images meet the BatchNorm of another kind (its rows are not in the order "
                "of the images, or a BatchNorm is called from outside of the registered modules); choose a method "
                "with one BatchNorm (st, at)"
            )


@contextmanager
def _bypassed(model: nn.Module) -> Iterator[list[str]]:
    """Within the block, collect the branches that are called by something else than the layer that holds them."""
    within, found = set[nn.Module](), list[str]()
    handles = []
    for layer in (module for module in model.modules() if isinstance(module, MultiBatchNorm)):
        handles += [
            layer.register_forward_pre_hook(lambda called, _: within.add(called)),
            layer.register_forward_hook(lambda called, *_: within.discard(called)),
        ]
        for branch, norm in layer.branches.items():
            handles.append(
                norm.register_forward_pre_hook(
                    lambda *_, layer=layer, branch=branch: None if layer in within else found.append(branch)
                )
            )
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
