"""``robustdml export``."""

from __future__ import annotations

from pathlib import Path

import click

from robustdml.cli.options import HomePath


@click.command()
@click.argument("run", type=HomePath())
@click.option("--out", required=True, type=HomePath(), help="The file, such as model.safetensors.")
@click.option("--branch", help="BatchNorm branch [default: the clean one].")
def export(run: Path, out: Path, branch: str | None) -> None:
    """Write a trained model as the weights of an ordinary torchvision model.

    RUN is the --out folder of 'robustdml train'. The names of the weights are torchvision's; the classifier is the
    embedding layer.
    """
    from robustdml.models import export as write
    from robustdml.models import load_checkpoint

    model = load_checkpoint(run).model
    click.echo(f"Weights of torchvision's {model.config.backbone}: {write(model, out, branch)}")
