"""docs/networks.md: what becomes of small networks of timm, torchvision, transformers and open_clip, tried one by one.

    python experiments/networks.py [--out runs/networks] [--only timm.resnet10t,...]

Each is made with random weights, trained one step under ``st`` and under ``mdprop``, its checkpoint read again, its
branches folded, exported, and its images attacked. What was found is kept in the folder, a file for each network: the
same command again goes on where it stopped.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn

from robustdml.api import attack
from robustdml.attacks import GOALS
from robustdml.config import RunOptions, TrainConfig
from robustdml.data import RetrievalDataset, load_dataset
from robustdml.data.tensors import ImageTensors
from robustdml.errors import RobustDMLError
from robustdml.models import export, fold, load_checkpoint
from robustdml.models.multibn import branch_names
from robustdml.training import train

PAGE = Path(__file__).parents[1] / "docs" / "networks.md"
TORCHVISION = [
    "resnet18",
    "regnet_y_400mf",
    "regnet_x_400mf",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "shufflenet_v2_x0_5",
    "mnasnet0_5",
    "squeezenet1_1",
    "efficientnet_b0",
    "densenet121",
    "googlenet",
    "convnext_tiny",
    "swin_t",
    "vit_b_16",
]
TIMM = [
    "resnet10t",
    "resnet26",
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small",
    "efficientnet_lite0",
    "tf_efficientnetv2_b0",
    "regnetx_002",
    "ghostnet_100",
    "repvgg_a0",
    "mobileone_s0",
    "convnext_atto",
    "convnextv2_atto",
    "edgenext_xx_small",
    "fastvit_t8",
    "mixer_s32_224",
    "vit_tiny_patch16_224",
    "deit_tiny_patch16_224",
    "levit_128s",
]
#: Of transformers, as small as their configurations allow; of open_clip, its image towers.
HUGGING_FACE = ("vit", "dinov2", "convnextv2", "swin")
OPEN_CLIP = ("ViT-S-32-alt", "RN50")
SIZE = 64


class _Tower(nn.Module):
    """The image tower of a model of open_clip, made for images of `SIZE`."""

    def __init__(self, name: str) -> None:
        super().__init__()
        import open_clip  # type: ignore[import-untyped]

        model: Any = open_clip.create_model(name, pretrained=None, force_image_size=SIZE)
        self.tower: nn.Module = model.visual
        self.num_features = int(model.visual.output_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings of images."""
        found: Tensor = self.tower(images)
        return found


def vit_s_32_alt() -> nn.Module:
    """open_clip's ViT-S-32-alt."""
    return _Tower("ViT-S-32-alt")


def rn50() -> nn.Module:
    """open_clip's RN50."""
    return _Tower("RN50")


def hugging_face(kind: str, folder: Path) -> str:
    """A backbone of transformers, from a configuration that is written into ``folder``."""
    import transformers

    sizes: dict[str, dict[str, Any]] = {
        "vit": {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 192},
        "dinov2": {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 3, "patch_size": 16},
        "convnextv2": {"hidden_sizes": [32, 64, 96, 128], "depths": [1, 1, 2, 1]},
        "swin": {"embed_dim": 32, "depths": [1, 1, 2], "num_heads": [1, 2, 4], "window_size": 4},
    }
    transformers.AutoConfig.for_model(kind, **sizes[kind], image_size=SIZE).save_pretrained(folder / kind)
    return f"hf.{folder / kind}"


def small_data() -> RetrievalDataset:
    """Ten training images of five digits: one batch."""
    data = load_dataset("digits")
    labels = data.labels[data.train]
    return replace(data, train=np.concatenate([data.train[labels == label][:2] for label in np.unique(labels)]))


def tried(data: RetrievalDataset, backbone: str, folder: Path) -> dict[str, str]:
    """What becomes of a network: for each thing that is done ``yes``, a number, or the sentence that refused it."""
    found: dict[str, str] = {}
    for method in ("st", "mdprop"):
        config = TrainConfig(
            method, backbone=backbone, embedding_dim=32, image_size=SIZE, epochs=1, batch_size=8, m_per_class=2,
            targets=2, eps=8 / 255, validation_classes=0,
        )  # fmt: skip
        try:
            result = train(data, config, folder / method, goals=GOALS, options=RunOptions("cpu", progress=False))
        except RobustDMLError as error:
            found[method] = str(error)
            continue
        found[method] = "yes"
        model = result.model
        found["parameters"] = f"{sum(weight.numel() for weight in model.parameters()) / 1e6:.1f}"
        images = ImageTensors(data.images, model.preprocessing).batch(data.train[:8])
        with torch.no_grad():
            expected = model(images)
            again = load_checkpoint(folder / method, trust_code=True).model(images)
            found["loaded"] = _equal(again, expected)
            names = branch_names(model)
            found["folded"] = _equal(fold(model, names[0])(images), expected) if names else "one branch"
        try:
            export(model, folder / f"{method}.safetensors")
            found["exported"] = "yes"
        except RobustDMLError as error:
            found["exported"] = str(error)
        # Each image is to find itself again: at first even a network with random weights does.
        labels = torch.arange(len(images))
        for spec in ("mi", "margin"):
            attacked = attack(model, images, labels, spec, eps=8 / 255, references=(images, labels))
            assert float((attacked - images).abs().max()) <= 8 / 255 + 1e-6
            with torch.no_grad():
                broken = int(((model(attacked) @ expected.T).argmax(1) != labels).sum())
            found[spec] = f"{broken} of {len(images)}"
    return found


def _equal(one: Tensor, other: Tensor) -> str:
    return "yes" if torch.allclose(one, other, atol=1e-5) else f"differs by {float((one - other).abs().max()):.1g}"


def page(found: dict[str, dict[str, str]]) -> str:
    """The table, with the sentences of refusals below it."""
    columns = {
        "st": "one step of st", "mdprop": "of mdprop", "loaded": "saved, loaded", "folded": "folded",
        "exported": "exported", "mi": "broken by mi", "margin": "by margin",
    }  # fmt: skip
    heads = ["network", "million parameters", *columns.values()]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    sentences: dict[str, int] = {}
    for name, row in found.items():
        cells = []
        for column in columns:
            text = row.get(column, "—")
            short = text in {"yes", "one branch", "—"} or text.startswith("differs") or text.endswith(" of 8")
            cells.append(text if short else f"no [{sentences.setdefault(text, len(sentences) + 1)}]")
        lines.append(f"| {name} | {row.get('parameters', '—')} | " + " | ".join(cells) + " |")
    notes = [f"{number}. {sentence}" for sentence, number in sentences.items()]
    return "\n".join([_HEAD, *lines, "", "What refused it:", "", *notes, ""])


_HEAD = """# Networks of other makers, tried

Small networks of torchvision, timm, transformers and open_clip with random weights at 64 x 64 pixels, each through all
that is done with a network here: trained one step (of 8 images) under `st` and `mdprop`, its checkpoint read again, its
BatchNorm branch folded into a plain network, exported as torchvision's, and attacked at 8/255 (how many of 8 images no
longer find themselves). Made by `python experiments/networks.py`.
"""


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/networks"))
@click.option("--only", default="", help="Names, parted by commas.")
def main(out: Path, only: str) -> None:
    """Try them, and write the page."""
    out.mkdir(parents=True, exist_ok=True)
    backbones = {name: name for name in TORCHVISION} | {f"timm.{name}": f"timm.{name}" for name in TIMM}
    backbones |= {f"transformers {kind}": hugging_face(kind, out) for kind in HUGGING_FACE}
    backbones |= {f"open_clip {name}": f"networks:{name.lower().replace('-', '_')}" for name in OPEN_CLIP}
    data, found = small_data(), dict[str, dict[str, str]]()
    for name, backbone in backbones.items():
        if only and name not in only.split(","):
            continue
        kept = out / f"{name.replace(' ', '-')}.json"
        if not kept.is_file():
            row = tried(data, backbone, out / name.replace(" ", "-"))
            # One sentence for all of its kind, and no folder of this machine in it.
            row = {key: text.replace(f"'{backbone}'", "NETWORK") for key, text in row.items()}
            kept.write_text(json.dumps(row), encoding="utf-8")
            click.echo(f"{name}: {row}")
        found[name] = json.loads(kept.read_text(encoding="utf-8"))
    if not only:
        PAGE.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
