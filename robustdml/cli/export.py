"""``robustdml export``."""

from __future__ import annotations

from pathlib import Path

import click

from robustdml.cli.options import HomePath
from robustdml.cli.output import Output, output_options


@click.command()
@click.argument("run", type=HomePath())
@click.option("--out", required=True, type=HomePath(), help="The file, such as model.safetensors.")
@click.option("--branch", help="BatchNorm branch [default: the clean one].")
@output_options
def export(run: Path, out: Path, branch: str | None, output: Output) -> None:
    """Write a trained model as the weights of an ordinary torchvision model.

    RUN is the --out folder of 'robustdml train'. The names of the weights are torchvision's; the classifier is the
    embedding layer.
    """
    from robustdml.models import export as write
    from robustdml.models import load_checkpoint

    model = load_checkpoint(run).model
    written = write(model, out, branch)
    output.line(f"Weights of torchvision's {model.config.backbone}: {written}")
    output.document({"exit_code": 0, "weights": str(written), "backbone": model.config.backbone})
