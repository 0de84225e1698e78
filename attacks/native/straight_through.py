"""Straight-through: an attack on the gradients that a model would have without its rounding (BPDA)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from robustdml.contracts import Attack, IdentifiedAttack, References, foreign_code
from robustdml.errors import SpecError
from robustdml.models import Straightened
from robustdml.registry import Spec
from robustdml.results import AttackEntry
from robustdml.threat import ThreatModel
from robustdml.values import check_fields


@dataclass(frozen=True)
class StraightThrough:
    """An attack on a model whose rounding and the like pass gradients on (Athalye et al. 2018, section 4.1.1).

    What the model answers is as it is; see `robustdml.models.Straightened` for what its gradients become.

    Args:
        attack: what is run on it.
        around: whether to go around whatever comes before the network, too.

    Raises:
        SpecError: the attack is not on queries.
    """

    attack: Attack
    around: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        inner = self.attack.entry()
        if inner.side != "query":
            raise SpecError(f"straight(attack='{inner.spec}') is for attacks on queries: choose one of those")

    @property
    def threat(self) -> ThreatModel:
        """That of the attack."""
        return self.attack.threat

    def entry(self) -> AttackEntry:
        """Its row in the results."""
        inner = self.attack.entry()
        return inner.model_copy(
            update={
                "spec": str(Spec("straight", {"attack": inner.spec, "around": self.around})),
                "name": f"straight-{inner.name}",
                "citations": (*inner.citations, "athalye2018obfuscated"),
            }
        )

    def identity(self) -> str:
        """See `robustdml.contracts.IdentifiedAttack`: that of the attack."""
        inner = self.attack
        return inner.identity() if isinstance(inner, IdentifiedAttack) else foreign_code(inner)

    def target_rows(self, references: References, *, seed: int) -> Tensor | None:
        """Those of the attack."""
        return self.attack.target_rows(references, seed=seed)

    def __call__(self, model: nn.Module, images: Tensor, references: References, *, seed: int) -> Tensor:
        """See `robustdml.contracts.Attack`."""
        return self.attack(Straightened(model, around=self.around), images, references, seed=seed)
