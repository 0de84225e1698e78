"""Transfer: the surrogate is attacked, the model is never asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from robustdml.attacks import PGD, STAX, SUITES, Margin, Transfer, build_attack
from robustdml.contracts import References
from robustdml.errors import AttackSkipped, CheckpointError, SpecError
from robustdml.models import EmbeddingModel, ModelConfig, save_checkpoint

EPS = 12 / 255


class Unasked(nn.Module):
    """A model that nobody may call."""

    def forward(self, images):
        raise AssertionError("the model was asked")


def galleried(world, items):
    """The world with a gallery whose images can be loaded."""
    gallery = replace(world.references.gallery, images=lambda rows: items[rows])
    return replace(world, references=replace(world.references, gallery=gallery))


@pytest.fixture
def items():
    return torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(4))


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    model = EmbeddingModel(ModelConfig(backbone="resnet-tiny", embedding_dim=8, image_size=8))
    save_checkpoint(model, tmp_path / "other", {})
    return str(tmp_path / "other")


def test_it_is_the_attack_on_the_surrogate_with_the_surrogates_gallery(world, items):
    world = galleried(world, items)
    attack = build_attack("transfer(surrogate='squares:SmallNet', attack='pgd(steps=3)')", EPS)
    found = attack(Unasked(), world.images, world.references, seed=3)

    from squares import SmallNet

    surrogate = nn.Sequential(SmallNet(), Unit()).eval()
    with torch.no_grad():
        gallery = replace(world.references.gallery, embeddings=surrogate(items))
        references = References(gallery, surrogate(world.images), world.references.labels, world.references.ids)
    expected = PGD(Margin(), EPS, steps=3)(surrogate, world.images, references, seed=3)
    assert torch.allclose(found, expected, atol=1e-6)
    assert attack.threat.allows(found, world.images).all()
    assert not torch.equal(found, world.images)


class Unit(nn.Module):
    def forward(self, embeddings):
        return nn.functional.normalize(embeddings, dim=1)


def test_a_run_folder_is_a_surrogate_and_its_gallery_is_embedded_once(world, items, folder):
    asked = []
    world = galleried(world, items)
    gallery = replace(world.references.gallery, images=lambda rows: asked.append(len(rows)) or items[rows])
    references = replace(world.references, gallery=gallery)
    attack = build_attack(f"transfer(surrogate={folder!r}, attack='stax(steps=2)')", EPS)
    first = attack(Unasked(), world.images, references, seed=3)
    asked.clear()
    fitted = attack.fitted(Unasked(), gallery, references.ids, seed=3)
    assert all(torch.equal(fitted(Unasked(), world.images, references, seed=3), first) for _ in range(2))
    assert asked == [12]
    assert torch.equal(attack.target_rows(references, seed=3), STAX().target_rows(references, seed=3))


def test_the_entry_says_what_was_known_and_builds_it_again(folder):
    attack = build_attack(f"transfer(surrogate={folder!r}, attack='apgd(norm=l2, eps=2)')", EPS)
    entry = attack.entry()
    assert (entry.name, entry.knowledge, entry.norm, entry.goal) == (
        "transfer-apgd-margin-l2",
        "transfer",
        "l2",
        "margin",
    )
    assert attack.threat.eps == 2
    assert "papernot2016transferability" in entry.citations
    plain = build_attack(f"transfer(surrogate={folder!r})", EPS)
    assert build_attack(plain.entry().spec, EPS) == plain
    assert hash(plain) == hash(build_attack(plain.entry().spec, EPS))


def test_without_images_of_the_gallery_it_is_skipped(world, folder):
    attack = build_attack(f"transfer(surrogate={folder!r})", EPS)
    gallery = replace(world.references.gallery, images=None)
    with pytest.raises(AttackSkipped, match="the images of the gallery are not at hand"):
        attack(Unasked(), world.images, replace(world.references, gallery=gallery), seed=3)


def test_what_cannot_be_a_surrogate_is_refused(folder, world, items):
    with pytest.raises(SpecError, match="transfer needs a surrogate: write"):
        build_attack("transfer", EPS)
    with pytest.raises(CheckpointError, match="no surrogate at 'nowhere': give"):
        build_attack("transfer(surrogate=nowhere)", EPS)
    with pytest.raises(SpecError, match="choose=nearest depends on the model's embeddings"):
        Transfer(folder, PGD(STAX(choose="nearest"), EPS))
    with pytest.raises(
        CheckpointError, match="the surrogate 'builtins:int' returned int: it must return a torch module"
    ):
        build_attack("transfer(surrogate='builtins:int')", EPS).identity()
    absent, world = build_attack("transfer(surrogate='squares:Absent')", EPS), galleried(world, items)
    with pytest.raises(CheckpointError, match="the surrogate 'squares:Absent' cannot be loaded"):
        absent(Unasked(), world.images, world.references, seed=3)


def test_no_suite_runs_it():
    assert not [spec for specs in SUITES.values() for spec in specs if spec.startswith("transfer")]
