"""Data sets of PyTorch with their transforms, and the accuracies of pytorch-metric-learning beside our metrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_metric_learning.testers import GlobalEmbeddingSpaceTester
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import robustdml
from robustdml.api.torch_data import torch_data
from robustdml.errors import DataError, RobustDMLError, SpecError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TEST = transforms.Compose(
    [transforms.Resize(24), transforms.CenterCrop(20), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
)


def pictures(count=24, each=4, size=(30, 40)):
    random = np.random.default_rng(0)
    tints = random.uniform(40, 200, (count // each, 1, 1, 3))
    noise = random.normal(0, 50, (count, *size, 3))
    arrays = np.clip(np.repeat(tints, each, 0) + noise, 0, 255).astype(np.uint8)
    return [Image.fromarray(array) for array in arrays], [row // each for row in range(count)]


class Photos(Dataset):
    """As those of torchvision and pytorch-metric-learning: a transform as attribute, and labels."""

    def __init__(self, transform=TEST, **options):
        self.images, self.labels = pictures(**options)
        self.transform = transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        image = self.images[row] if self.transform is None else self.transform(self.images[row])
        return image, self.labels[row]


class Unasking(Photos):
    """It calls its transforms without asking whether there are any."""

    def __init__(self):
        super().__init__()
        self.target_transform = int

    def __getitem__(self, row):
        return self.transform(self.images[row]), self.target_transform(self.labels[row])


class Pairs(Dataset):
    """No attribute at all: labels come with the images."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, row):
        return self.items[row]


def parts():
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten())
    return trunk.eval(), nn.Linear(4 * 81, 6).eval()


def evaluated(data, attacks=(), **options):
    return robustdml.evaluate(nn.Sequential(*parts()), data, attacks, device="cpu", progress=False, **options)


def test_clean_metrics_are_those_of_pytorch_metric_learning():
    """AccuracyCalculator with the test set as its own reference, of a trunk, an embedder and a data set as it is."""
    data = Photos()
    trunk, embedder = parts()
    tester = GlobalEmbeddingSpaceTester(dataloader_num_workers=0, data_device="cpu")
    embeddings, labels = tester.get_all_embeddings(data, trunk, embedder)
    include = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    theirs = AccuracyCalculator(include=include, device=torch.device("cpu"))
    found = theirs.get_accuracy(embeddings, labels.squeeze(1))
    ours = evaluated(data).models[0].clean.metrics
    # Pillow and torchvision's tensors differ by a grey level where they resize.
    assert ours["recall_at_1"] == found["precision_at_1"]
    assert ours["r_precision"] == pytest.approx(found["r_precision"], abs=0.02)
    assert ours["map_at_r"] == pytest.approx(found["mean_average_precision_at_r"], abs=0.02)
    assert 0.2 < ours["recall_at_1"] < 1


def test_queries_and_references_apart_are_those_of_the_calculator():
    data = Photos()
    query, reference = Subset(data, range(0, 24, 4)), Subset(data, [row for row in range(24) if row % 4])
    trunk, embedder = parts()
    with torch.no_grad():
        asked, searched = (
            embedder(trunk(torch.stack([part[row][0] for row in range(len(part))]))) for part in (query, reference)
        )
    labels = [torch.tensor([part[row][1] for row in range(len(part))]) for part in (query, reference)]
    theirs = AccuracyCalculator(include=("precision_at_1",), device=torch.device("cpu"))
    unit = nn.functional.normalize
    found = theirs.get_accuracy(unit(asked), labels[0], unit(searched), labels[1])
    results = evaluated((query, reference))
    assert results.models[0].clean.metrics["recall_at_1"] == found["precision_at_1"]
    assert (results.dataset.queries, results.dataset.gallery) == (6, 18)


def test_the_model_is_attacked_in_pixels_before_its_normalisation():
    results = evaluated(Photos(), "margin", eps="2/255")
    assert results.cells[0].status == "ok"
    assert results.cells[0].largest_norm == pytest.approx(2 / 255, abs=1e-5)
    view = results.models[0].preprocessing
    assert (view.size, view.resize, view.mean, view.std) == (20, 24, MEAN, STD)
    assert results.models[0].architecture == "Sequential"


TRANSFORMS = {
    "of both sides": (transforms.Compose([transforms.Resize((20, 20)), transforms.ToTensor()]), "both sides to 20"),
    "v2": (
        v2.Compose(
            [
                v2.Resize(24, interpolation=v2.InterpolationMode.BICUBIC),
                v2.CenterCrop([20, 20]),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        ),
        "shorter side to 24 (bicubic), centre crop 20",
    ),
    "nested": (
        transforms.Compose([transforms.Compose([transforms.Resize(20)]), TEST.transforms[1], *TEST.transforms[2:]]),
        "20",
    ),
}


@pytest.mark.compatible(
    "Python", "a data set of PyTorch with torchvision's transforms", "images as in training, attacked in pixels"
)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_are_read(name):
    transform, view = TRANSFORMS[name]
    found = torch_data(Photos(transform))
    assert view in found.view.view


def test_a_transform_that_is_called_unasked_is_read_too():
    images, plain = torch_data(Unasking()).dataset.images, torch_data(Photos()).dataset.images
    assert [images.load(row).tobytes() for row in (0, 23)] == [plain.load(row).tobytes() for row in (0, 23)]


REFUSED = {
    "random": ([transforms.RandomCrop(20), transforms.ToTensor()], "'RandomCrop', which draws at random"),
    "unknown": ([transforms.Grayscale(3), transforms.ToTensor()], "'Grayscale', which is unknown here"),
    "a function": ([lambda image: transforms.functional.to_tensor(image)], "'function', which is unknown here"),
    "no cut": ([transforms.Resize(20), transforms.ToTensor()], r"other images \(\(3, 20, 26\) in place"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_transforms_that_cannot_be_done_here_are_one_sentence(name):
    steps, sentence = REFUSED[name]
    with pytest.raises(SpecError, match=sentence) as caught:
        torch_data(Photos(transforms.Compose(steps)))
    assert "\n" not in str(caught.value)


def test_a_folder_of_torchvision_is_read_from_its_files(tmp_path):
    images, labels = pictures(8)
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        (tmp_path / f"class {label}").mkdir(exist_ok=True)
        image.save(tmp_path / f"class {label}" / f"{row}.png")
    found = torch_data(ImageFolder(tmp_path, TEST)).dataset
    assert found.class_names == ("class 0", "class 1")
    assert found.images.name(0) == "class 0/0.png"


def test_tensors_and_subsets_and_text_labels():
    images, labels = torch.rand(8, 3, 12, 12), torch.arange(8) // 2
    found = torch_data(Subset(Subset(TensorDataset(images, labels), range(1, 8)), range(1, 7)))
    assert found.dataset.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.view is None
    worded = torch_data(Pairs([(image, f"class {row // 4}") for row, image in enumerate(images)])).dataset
    assert worded.class_names == ("class 0", "class 1")
    assert np.asarray(worded.images.load(3)).shape == (12, 12, 3)
    lonely = torch_data(Pairs([(image, max(row, 1)) for row, image in enumerate(images)])).dataset
    assert (len(lonely.query), len(lonely.gallery)) == (2, 8)
    assert "6 that have nothing to find do not ask" in lonely.protocol


WRONG = {
    "no pairs": (Pairs([torch.rand(3, 8, 8)] * 4), "gives Tensor where an image and its label are needed"),
    "normalised": (Pairs([(torch.randn(3, 8, 8), 0)] * 4), r"pixels are in \[0, 1\] here"),
    "floats": (Pairs([(torch.rand(3, 8, 8), 0.5)] * 4), "the label 0.5 of the data set is no whole number"),
    "five channels": (Pairs([(torch.rand(5, 8, 8), 0)] * 4), r"and it must be \(3, H, W\)"),
    "empty": (Pairs([]), "has no length, or is empty"),
    "nothing to find": (Pairs([(torch.rand(3, 8, 8), row) for row in range(4)]), "has anything to find"),
}


@pytest.mark.parametrize("name", WRONG)
def test_other_data_are_one_sentence(name):
    data, sentence = WRONG[name]
    with pytest.raises(DataError, match=sentence) as caught:
        torch_data(data)
    assert "\n" not in str(caught.value)


def test_what_has_no_training_is_not_trained_on(tmp_path):
    with pytest.raises(SpecError, match="no training and test classes here"):
        robustdml.train(Photos(), "st", tmp_path)
    with pytest.raises(RobustDMLError):
        evaluated((Photos(), Photos(transforms.ToTensor())))
