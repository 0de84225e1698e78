"""Train on noisy copies of the training images, for certificates of the smoothed model (docs/certified.md).

    python experiments/noise_training.py --out runs/noise [--data digits] [--sigma 0.25] [--copies 6] [--epochs 8]

The copies are cut to [0, 1] and rounded to 8 bits, as images are; the test images stay as they are.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from robustdml.config import TrainConfig
from robustdml.data import ArrayImages, RetrievalDataset, load_dataset
from robustdml.data.tensors import ImageTensors
from robustdml.seeding import stream
from robustdml.training import train


def noisy(data: RetrievalDataset, sigma: float, copies: int) -> RetrievalDataset:
    """The data set with so many noisy copies of each training image in place of it."""
    size = data.image_size
    images = ImageTensors(data.images, size, cache_bytes=0)
    every = np.concatenate([np.repeat(data.train, copies), np.union1d(data.query, data.gallery)])
    pixels = images.batch(every).permute(0, 2, 3, 1).numpy()
    count = copies * len(data.train)
    noise = stream(0, "noise training", 0).standard_normal(pixels[:count].shape, dtype=np.float32)
    pixels[:count] = (pixels[:count] + sigma * noise).clip(0, 1)
    place = {row: count + number for number, row in enumerate(every[count:].tolist())}
    return replace(
        data,
        images=ArrayImages((255 * pixels).round().astype(np.uint8)),
        labels=data.labels[every],
        train=np.arange(count),
        query=np.array([place[row] for row in data.query.tolist()]),
        gallery=np.array([place[row] for row in data.gallery.tolist()]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--sigma", type=float, default=0.25)
    parser.add_argument("--copies", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--backbone", default="resnet-tiny")
    options = parser.parse_args()
    data = noisy(load_dataset(options.data, options.root), options.sigma, options.copies)
    train(data, TrainConfig(method="st", backbone=options.backbone, epochs=options.epochs), out=options.out)


if __name__ == "__main__":
    main()
