"""Models of which it is known whether their robustness can be measured: what flags are checked against.

All are made from one small network trained for a few steps, or are honest networks of other kinds.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from robustdml.data import RetrievalDataset, load_dataset
from robustdml.data.tensors import ImageTensors
from robustdml.evaluation.checks.detectors import IMAGES, examine, probe
from robustdml.evaluation.judge import Judge
from robustdml.models import branch_layout, convert_to_multibn, evaluation_mode
from robustdml.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from robustdml.results import Flag
from robustdml.retrieval.embed import Embedder


class Plain(nn.Module):
    """Three convolutions with BatchNorm and a projection."""

    def __init__(self, dimensions: int = 24) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((3, 16), (16, 32), (32, 48)):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(48, dimensions)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body((images - 0.5) / 0.25).mean((2, 3)))


def trained(make: Callable[[], nn.Module], dataset: RetrievalDataset, steps: int = 40) -> nn.Module:
    """A model after a few steps of classification by cosine to learned proxies, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make().train()
        labels = torch.from_numpy(dataset.labels)
        classes = np.unique(dataset.labels[dataset.train])
        images = ImageTensors(dataset.images, dataset.image_size)
        size = model(images.batch(dataset.train[:2])).shape[1]
        proxies = nn.Parameter(torch.randn(int(classes.max()) + 1, size))
        optimizer = torch.optim.Adam([*model.parameters(), proxies], lr=3e-3)
        for _ in range(steps):
            rows = dataset.train[torch.randint(len(dataset.train), (32,)).numpy()]
            similarity = F.normalize(model(images.batch(rows))) @ F.normalize(proxies).T
            loss = F.cross_entropy(10 * similarity, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


class Around(nn.Module):
    """A model with something before and something after it."""

    def __init__(
        self,
        model: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda images: images,
        after: Callable[[Tensor], Tensor] = lambda values: values,
    ) -> None:
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, images: Tensor) -> Tensor:
        return self.after(self.model(self.before(images)))


class NoiseGradient(torch.autograd.Function):
    """The identity, with noise for a gradient."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return torch.randn(gradient.shape, generator=torch.Generator().manual_seed(1)) * gradient.abs().mean()


class NanGradient(torch.autograd.Function):
    """The identity, with NaN in the gradient of one pixel."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:  # type: ignore[override]
        gradient = gradient.clone()
        gradient[:, 0, 0, 0] = float("nan")
        return gradient


class Counting(nn.Module):
    """Another embedding after so many calls."""

    def __init__(self, model: nn.Module, calls: int) -> None:
        super().__init__()
        self.model, self.left = model, calls

    def forward(self, images: Tensor) -> Tensor:
        self.left -= 1
        found = self.model(images)
        return found if self.left > 0 else found.roll(1, dims=1)


class RunningMean(nn.Module):
    """Keeps a running mean of what it is shown, in evaluation mode too."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.5))

    def forward(self, images: Tensor) -> Tensor:
        self.mean.mul_(0.9).add_(0.1 * images.detach().mean((0, 2, 3), keepdim=True))
        return self.model((images - self.mean + 0.5).clamp(0, 1))


class OtherBranch(nn.Module):
    """One model with gradients, another without."""

    def __init__(self, deployed: nn.Module, shown: nn.Module) -> None:
        super().__init__()
        self.deployed, self.shown = deployed, shown

    def forward(self, images: Tensor) -> Tensor:
        return (self.shown if torch.is_grad_enabled() else self.deployed)(images)


class ClassProbabilities(nn.Module):
    """A softmax over classes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return (4 * self.model(images)).softmax(1)


class Half(nn.Module):
    """Weights and arithmetic in half precision."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.half()

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images.half()).float()


def jpeg(images: Tensor) -> Tensor:
    """Through a JPEG file of quality 75."""
    found = []
    for image in images.detach().mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=75)
        found.append(torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1))
    return torch.stack(found).float() / 255


def median(images: Tensor) -> Tensor:
    """The median of 3 x 3 pixels."""
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    return padded.unfold(2, 3, 1).unfold(3, 3, 1).flatten(4).median(4).values


def colours(images: Tensor) -> Tensor:
    """To luma and colour differences, and back."""
    to = torch.tensor([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])
    other = torch.einsum("ij,njhw->nihw", to, images)
    return torch.einsum("ij,njhw->nihw", torch.linalg.inv(to), other)


def batch_whitened(values: Tensor) -> Tensor:
    """By the statistics of the batch."""
    return (values - values.mean(0)) / (values.std(0, correction=0) + 0.3)


def drop_tokens(images: Tensor) -> Tensor:
    """A quarter of 4 x 4 patches goes, drawn anew each time."""
    kept = (torch.rand(len(images), 1, images.shape[2] // 4, images.shape[3] // 4) > 0.25).float()
    return images * F.interpolate(kept, scale_factor=4)


def batch_normalised(images: Tensor) -> Tensor:
    """Colours by the statistics of the batch: BatchNorm adapted at test time."""
    mean, spread = images.mean((0, 2, 3), keepdim=True), images.std((0, 2, 3), keepdim=True)
    return (images - mean) / (spread + 0.05) * 0.25 + 0.5


def shifted(images: Tensor) -> Tensor:
    """By up to two pixels, drawn anew each time."""
    return images.roll(tuple(torch.randint(-2, 3, (2,)).tolist()), dims=(2, 3))


def resized(images: Tensor) -> Tensor:
    """To a side drawn anew each time, and padded."""
    side = images.shape[-1] - int(torch.randint(0, 6, ()))
    smaller = F.interpolate(images, size=(side, side), mode="bilinear")
    return F.pad(smaller, (0, images.shape[-1] - side, 0, images.shape[-1] - side), value=0.5)


def eight_bit_colours(images: Tensor) -> Tensor:
    """To luma and colour differences of 8 bits, and back."""
    to = torch.tensor([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])
    other = (torch.einsum("ij,njhw->nihw", to, images) * 255).round() / 255
    return torch.einsum("ij,njhw->nihw", torch.linalg.inv(to), other)


class Normalised(nn.Module):
    """Declares ImageNet's statistics; whether it normalises by them is another matter."""

    def __init__(self, dataset: RetrievalDataset, *, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.preprocessing = Preprocessing(dataset.image_size, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        self.net, self.mean, self.std = trained(Plain, dataset).body, mean.view(3, 1, 1), std.view(3, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.net((images - self.mean) / self.std).mean((2, 3))


def branch_trick(dataset: RetrievalDataset) -> nn.Module:
    """Two BatchNorm branches: gradients go through one, what is deployed is the other."""
    net = convert_to_multibn(trained(Plain, dataset), ["clean", "other"])
    with torch.no_grad():
        for name, tensor in net.named_parameters():
            if ".branches.other." in name:
                tensor.add_(0.7 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0)))

    class Tricky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, images: Tensor) -> Tensor:
            with branch_layout(self.net, [("other" if images.requires_grad else "clean", None)]):
                return self.net(images)

    return Tricky()


class Bfloat16(nn.Module):
    """Arithmetic in bfloat16 inside, as autocast has it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.model(images).float()


def partly_detached(values: Tensor) -> Tensor:
    """Most of it hides from gradients."""
    return 0.8 * values.detach() + 0.2 * values


def vision_transformer(size: int) -> nn.Module:
    """A small one; torchvision's begins with a head of zeros."""
    model = torchvision.models.VisionTransformer(size, 8, 2, 4, 32, 64, num_classes=24)
    nn.init.normal_(model.heads.head.weight)
    return model


def small_digits() -> RetrievalDataset:
    """64 digits to search for in some 180."""
    digits = load_dataset("digits").subset_queries(64, 0)
    return replace(digits, gallery=np.union1d(digits.query, digits.gallery[:128]))


def examined(model: nn.Module, dataset: RetrievalDataset, name: str) -> list[Flag]:
    """The flags of a model, as an evaluation finds them before its attacks."""
    tensors, victim = ImageTensors(dataset.images, dataset.image_size), Embedder(model)
    part = np.unique(np.linspace(0, len(dataset.query) - 1, IMAGES).astype(np.int64))
    with evaluation_mode(victim):
        judge = Judge(victim, dataset.test, tensors, torch.device("cpu"), name=name)
        images = tensors.batch(dataset.query[part])
        classes = frozenset({len(dataset.class_names)})
        return examine(probe(judge, images, part, name=name, classes=classes, chance=0.1))


def bad_models(dataset: RetrievalDataset) -> dict[str, tuple[nn.Module, frozenset[str]]]:
    """By what is wrong with them: the models, and flags of which each must raise one at least."""
    net, other = trained(Plain, dataset), trained(Plain, dataset, steps=5)
    with torch.no_grad():
        image = ImageTensors(dataset.images, dataset.image_size).batch(dataset.gallery[:64])
        centre = net(image).mean(0)
    unit = lambda values: F.normalize(values - centre)  # noqa: E731
    models: dict[str, tuple[nn.Module, str]] = {
        "input rounded to 8 bits": (Around(net, lambda x: (x * 255).round() / 255), "zero-gradients"),
        "input cut to 8 bits": (Around(net, lambda x: (x * 255).floor() / 255), "input-quantised"),
        "input rounded to 5 bits": (Around(net, lambda x: (x * 31).round() / 31), "input-quantised"),
        "input rounded to 3 bits": (Around(net, lambda x: (x * 7).round() / 7), "input-quantised"),
        "colours of 8 bits there and back": (Around(net, eight_bit_colours), "zero-gradients"),
        "half precision whose gradients vanish": (
            Around(net, after=lambda z: (z.half() * 1e-7).float() * 1e7),
            "zero-gradients",
        ),
        "random resize": (Around(net, resized), "stochastic"),
        "BatchNorm branch trick": (branch_trick(dataset), "gradient-branch"),
        "normalisation declared and forgotten": (
            Normalised(dataset, mean=torch.zeros(3), std=torch.ones(3)),
            "preprocessing-contradicted",
        ),
        "input rounded, straight-through": (
            Around(net, lambda x: x + ((x * 255).round() / 255 - x).detach()),
            "input-quantised",
        ),
        "JPEG": (Around(net, jpeg), "no-gradient"),
        "gradient replaced by noise": (Around(net, NoiseGradient.apply), "misleading-gradients"),
        "NaN gradient in a pixel": (Around(net, NanGradient.apply), "nan-gradients"),
        "gradient detached": (Around(net, lambda x: x.detach()), "no-gradient"),
        "gradient partly detached": (Around(net, after=partly_detached), "gradient-mismatch"),
        "other branch with gradients": (OtherBranch(net, other), "gradient-branch"),
        "random shift": (Around(net, shifted), "stochastic"),
        "noise on the input": (Around(net, lambda x: x + 0.1 * torch.randn_like(x)), "stochastic"),
        "dropout left on": (Around(net, after=lambda z: F.dropout(z, 0.2, training=True)), "stochastic"),
        "dropout of patches": (Around(net, drop_tokens), "stochastic"),
        "counter, 10 calls": (Counting(net, 10), "hidden-state"),
        "running mean": (RunningMean(net), "hidden-state"),
        "batch-dependent embedding": (Around(net, after=batch_whitened), "batch-dependent"),
        "BatchNorm adapted at test time": (Around(net, batch_normalised), "batch-dependent"),
        "sign hash": (Around(net, after=lambda z: unit(z).sign()), "zero-gradients"),
        "embedding rounded": (Around(net, after=lambda z: (7 * unit(z)).round() / 7), "zero-gradients"),
        "saturated outputs": (Around(net, after=lambda z: torch.tanh(300 * unit(z))), "saturated-outputs"),
        "clipped outputs": (Around(net, after=lambda z: unit(z).clamp(-0.02, 0.02)), "saturated-outputs"),
        "class probabilities": (ClassProbabilities(net), "class-probabilities"),
        "length 1e-14": (Around(net, after=lambda z: 1e-14 * F.normalize(z)), "embedding-length"),
        "length 1e19": (Around(net, after=lambda z: 1e19 * F.normalize(z)), "embedding-length"),
    }
    return {name: (model, frozenset({slug})) for name, (model, slug) in models.items()}


def honest_models(dataset: RetrievalDataset) -> dict[str, nn.Module]:
    """Networks of several kinds, of random or lightly trained weights, and harmless things around them."""
    zoo = torchvision.models
    net = trained(Plain, dataset)

    def seeded(make: Callable[[], nn.Module]) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return make().eval()

    layered = nn.Sequential(
        nn.Conv2d(3, 24, 4, 4), nn.Flatten(2), nn.LayerNorm(64), nn.GELU(), nn.Flatten(), nn.Linear(1536, 24)
    )
    return {
        "convolutions, trained": net,
        "convolutions, random": seeded(Plain),
        "half precision": Half(trained(Plain, dataset)),
        "bfloat16 inside": Bfloat16(net),
        "normalised as declared": Normalised(dataset, mean=torch.tensor(IMAGENET_MEAN), std=torch.tensor(IMAGENET_STD)),
        "LayerNorm and GELU": trained(lambda: layered, dataset),
        "ResNet-18, random": seeded(lambda: zoo.resnet18(num_classes=32)),
        "ResNet-18, trained": trained(lambda: zoo.resnet18(num_classes=32), dataset, steps=6),
        "MobileNetV3, random": seeded(lambda: zoo.mobilenet_v3_small(num_classes=32)),
        "ConvNeXt, random": seeded(
            lambda: zoo.convnext.ConvNeXt(
                [zoo.convnext.CNBlockConfig(16, 32, 1), zoo.convnext.CNBlockConfig(32, None, 1)], num_classes=32
            )
        ),
        "ViT, random": seeded(lambda: vision_transformer(dataset.image_size)),
        "ViT, trained": trained(lambda: vision_transformer(dataset.image_size), dataset),
        "linear": seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * dataset.image_size**2, 24))),
        "median filter": Around(net, median),
        "colours there and back": Around(net, colours),
        "unit length": Around(net, after=F.normalize),
    }
