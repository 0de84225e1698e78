"""Transfer: an attack computed on a surrogate, for a model that the attacker cannot ask anything."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustdml.contracts import Attack, Gallery, References, foreign_code
from robustdml.errors import AttackSkipped, CheckpointError, SpecError
from robustdml.importing import call_factory, code_digest, load_object
from robustdml.models import load_checkpoint, untouched, weights_fingerprint
from robustdml.registry import Spec
from robustdml.results import AttackEntry
from robustdml.threat import ThreatModel
from robustdml.values import check_fields

# Gallery images that pass through the surrogate at once.
_BATCH = 128


@dataclass(frozen=True)
class Transfer:
    """An attack on a surrogate, whose images are sent to the model under evaluation (Papernot et al. 2016).

    The attacker knows the gallery's images and the surrogate; the model itself is never asked.

    Args:
        surrogate: a run folder of ``robustdml train``, or ``package.module:factory`` of a module that maps images
            ``(N, 3, H, W)`` in [0, 1] to ``(N, D)``; only its name where the ``module`` is at hand.
        attack: what is run on the surrogate. Its targets must not depend on embeddings, so that they are the same
            items for both models.

    Raises:
        SpecError: there is no surrogate, or the attack's targets depend on embeddings.
        CheckpointError: the surrogate is no folder and no ``package.module:factory``.
    """

    surrogate: str
    attack: Attack
    module: nn.Module | None = field(default=None, compare=False, repr=False)
    #: The surrogate and the gallery as it sees it, where they are at hand (see `fitted`).
    known: tuple[nn.Module, Tensor] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.surrogate:
            raise SpecError("transfer needs a surrogate: write transfer(surrogate='runs/other') or 'package:factory'")
        if self.module is None and not Path(self.surrogate).exists() and ":" not in self.surrogate:
            raise CheckpointError(
                f"no surrogate at '{self.surrogate}': give the --out folder of 'robustdml train', or package:factory"
            )
        choose = getattr(getattr(self.attack, "goal", None), "choose", "random")
        if choose in {"nearest", "hardest"}:
            raise SpecError(
                f"choose={choose} depends on the model's embeddings, which transfer does not know: take random"
            )

    @property
    def threat(self) -> ThreatModel:
        """That of the attack."""
        return self.attack.threat

    def entry(self) -> AttackEntry:
        """Its row in the results."""
        inner = self.attack.entry()
        knowledge: Literal["transfer"] = "transfer"
        return inner.model_copy(
            update={
                "spec": str(Spec("transfer", {"surrogate": self.surrogate, "attack": inner.spec})),
                "name": f"transfer-{inner.name}",
                "knowledge": knowledge,
                "citations": (*inner.citations, "papernot2016transferability"),
            }
        )

    def identity(self) -> str:
        """See `robustdml.contracts.IdentifiedAttack`: the surrogate's weights, and the code that makes it."""
        code = "" if Path(self.surrogate).exists() else code_digest(load_object(self.surrogate))
        parts = weights_fingerprint(_OnSphere(_load(self.surrogate))), code, foreign_code(self.attack)
        return " ".join(part for part in parts if part)

    def target_rows(self, references: References, *, seed: int) -> Tensor | None:
        """Those of the attack."""
        return self.attack.target_rows(references, seed=seed)

    def fitted(self, model: nn.Module, gallery: Gallery, avoid: Tensor, *, seed: int) -> Transfer:
        """See `robustdml.contracts.FittedAttack`: the surrogate sees the gallery once for all queries."""
        module = _load(self.surrogate) if self.module is None else self.module
        surrogate = _OnSphere(module).eval().to(gallery.embeddings.device)
        return replace(self, known=(surrogate, _gallery_embeddings(surrogate, gallery)))

    def __call__(self, model: nn.Module, images: Tensor, references: References, *, seed: int) -> Tensor:
        """See `robustdml.contracts.Attack`; ``model`` is not called."""
        if self.known is None:
            self = self.fitted(model, references.gallery, references.ids, seed=seed)
        assert self.known is not None
        surrogate, embeddings = self.known
        gallery = replace(references.gallery, embeddings=embeddings)
        with torch.no_grad():
            known = replace(references, gallery=gallery, embeddings=surrogate(images))
        with untouched(surrogate):
            return self.attack(surrogate, images, known, seed=seed)


class _OnSphere(nn.Module):
    """A module with its output put on the unit sphere, as attacks expect it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.module(images).float(), dim=1)


def _load(surrogate: str) -> nn.Module:
    if Path(surrogate).exists():
        module: object = load_checkpoint(surrogate).deployed()
    else:
        module = call_factory(surrogate, "the surrogate")
    if not isinstance(module, nn.Module):
        raise CheckpointError(
            f"the surrogate '{surrogate}' returned {type(module).__name__}: it must return a torch module"
        )
    return module


@torch.no_grad()
def _gallery_embeddings(surrogate: nn.Module, gallery: Gallery) -> Tensor:
    if gallery.images is None:
        raise AttackSkipped("the images of the gallery are not at hand, which the surrogate has to see")
    rows = torch.arange(len(gallery), device=gallery.ids.device)
    return torch.cat([surrogate(gallery.images(part)) for part in rows.split(_BATCH)])
