"""``robustdml train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from robustdml.cli.options import HomePath, SidesType, data_options, read_data, run_options, skip_broken_option
from robustdml.cli.output import Output
from robustdml.cli.processes import one_voice
from robustdml.config import RunOptions, TrainConfig
from robustdml.data.finding import said
from robustdml.threat import format_eps, parse_eps

_DEFAULT = TrainConfig()


@click.command()
@data_options
@click.option("--method", default=_DEFAULT.method, show_default=True, help="See 'robustdml list methods'.")
@click.option("--recipe", type=HomePath(), help="TOML file; options on the command line take precedence over it.")
@click.option("--trust-code", is_flag=True, help="Run the code that a recipe names as its backbone.")
@click.option("--backbone", default=_DEFAULT.backbone, show_default=True, help="See 'robustdml list backbones'.")
@click.option("--loss", default=_DEFAULT.loss, show_default=True, help="See 'robustdml list losses'.")
@click.option("--miner", help="Of pairs or triplets, such as BatchHardMiner [default: the loss's own; none: all].")
@click.option("--out", required=True, type=HomePath(), help="Run folder; repeat the command to resume.")
@click.option("--epochs", default=_DEFAULT.epochs, show_default=True, help="Passes over the training images.")
@click.option("--batch-size", default=_DEFAULT.batch_size, show_default=True, help="Clean images of a step.")
@click.option("--m-per-class", type=int, help="Images per class in a batch [default: 4, or as the classes allow].")
@click.option("--lr", "learning_rate", default=_DEFAULT.learning_rate, show_default=True, help="Peak learning rate.")
@click.option(
    "--loss-lr",
    "loss_learning_rate",
    default=_DEFAULT.loss_learning_rate,
    show_default=True,
    help="Peak rate of what the loss learns, such as ArcFace's centres.",
)
@click.option("--weight-decay", default=_DEFAULT.weight_decay, show_default=True, help="Of the model's weights.")
@click.option(
    "--loss-weight-decay",
    default=_DEFAULT.loss_weight_decay,
    show_default=True,
    help="Of what the loss learns, such as ArcFace's centres.",
)
@click.option("--eps", default=format_eps(_DEFAULT.eps), show_default=True, help="Training budget, e.g. 2/255.")
@click.option("--attack-steps", default=_DEFAULT.attack_steps, show_default=True, help="Steps per training example.")
@click.option("--targets", default=_DEFAULT.targets, show_default=True, help="T: targets of a MTAX.")
@click.option(
    "--arithmetic",
    type=click.Choice(["pixels", "published"]),
    default=_DEFAULT.arithmetic,
    show_default=True,
    help="Of training examples; published: as in the paper, eps after normalisation.",
)
@click.option(
    "--schedule",
    type=click.Choice(["cosine", "constant"]),
    default=_DEFAULT.schedule,
    show_default=True,
    help="Of --lr.",
)
@click.option("--embedding-dim", default=_DEFAULT.embedding_dim, show_default=True)
@click.option(
    "--image-size", type=SidesType(), help="Side in pixels, or 256x128 (height, width) [default: the data set's]."
)
@click.option(
    "--resize",
    type=int,
    help="Shorter side before the centre crop [default: --image-size; the pretrained weights' own].",
)
@click.option("--squash", is_flag=True, help="Bring both sides to --resize, not the shorter one.")
@click.option(
    "--crop-scale",
    type=float,
    help="Smallest share of the area that a random crop takes [default: the data set's, 0.4; the paper's: 0.08].",
)
@click.option("--pretrained", is_flag=True, help="Start from published weights (downloaded).")
@click.option("--weights", help="Which published weights, such as IMAGENET1K_V1 [default: the newest]; --pretrained.")
@click.option(
    "--validation-classes",
    type=int,
    help="Training classes held out to choose the epoch [default: a tenth of them; 0 trains on all].",
)
@click.option("--patience", type=int, help="Stop after so many epochs without a better validation R@1.")
@click.option("--clip-gradient", default=_DEFAULT.clip_gradient, show_default=True, help="Largest norm; 0: no limit.")
@click.option(
    "--average-weights",
    default=_DEFAULT.average_weights,
    show_default=True,
    help="Decay of a moving average of the weights, which is then kept, e.g. 0.999.",
)
@click.option("--precision", default=_DEFAULT.precision, show_default=True, help="fp32 or bf16.")
@click.option("--seed", default=_DEFAULT.seed, show_default=True)
@click.option(
    "--save-every",
    "save_minutes",
    type=click.FloatRange(min=0),
    default=RunOptions().save_minutes,
    show_default=True,
    metavar="MINUTES",
    help="Save the state within an epoch too, so that a kill loses no more.",
)
@click.option("--tensorboard", is_flag=True, help="Write curves too: watch them with 'tensorboard --logdir OUT'.")
@skip_broken_option
@run_options
def train(
    data: str,
    root: Path | None,
    allow_outside: bool,
    skip_broken: bool,
    recipe: Path | None,
    trust_code: bool,
    out: Path,
    eps: str,
    device: str,
    output: Output,
    save_minutes: float,
    tensorboard: bool,
    **config: Any,
) -> None:
    """Train an embedding model: standard (st), AT, AdvProp-D or MDProp.

    The run folder holds the model (model.safetensors, model.json), metrics.jsonl, and what is needed to resume; with
    --tensorboard, an event file in tensorboard/ too.

    Several processes train the same model: torchrun --nproc_per_node 2 -m robustdml train ...
    """
    with one_voice(device) as reports:
        budget = parse_eps(eps)
        from robustdml.attacks import GOALS
        from robustdml.training import read_recipe
        from robustdml.training import train as run
        from robustdml.training.setup import check_early

        config["eps"] = budget
        if recipe:
            # The recipe takes precedence over a default, and what was typed over the recipe.
            context, typed = click.get_current_context(), ParameterSource.COMMANDLINE
            typed_backbone = context.get_parameter_source("backbone") == typed
            for key, value in read_recipe(recipe, trust_code=trust_code or typed_backbone).items():
                # A list of branches is a method: one that was typed takes precedence over it.
                option = "method" if key == "recipe" else key
                if context.get_parameter_source(option) != typed:
                    config[key] = value
        settings = TrainConfig(**config)
        options = RunOptions(
            device=device, progress=not output.quiet, tensorboard=tensorboard, save_minutes=save_minutes
        )
        check_early(settings, options)
        dataset = read_data(data, root, output, skip_broken, allow_outside)
        result = run(dataset, settings, out, goals=GOALS, options=options, skip_broken=skip_broken)
    if not reports:
        return
    where = f" --root {root}" if root else ""
    kept = f"epoch {result.kept_epoch} of {len(result.history)}"
    output.line(f"{settings.method} on {data}: model in {out} ({kept}).")
    if parts := said(result.left_out):
        output.line(f"Data{parts}; listed in left-out.csv.")
    output.note(f"Next: robustdml evaluate {out} --data {data}{where} --out ...")
    output.document(
        {
            "exit_code": 0,
            "run": str(out),
            "method": settings.method,
            "kept_epoch": result.kept_epoch,
            "history": [dict(row) for row in result.history],
            "left_out": {part.reason: len(part.names) for part in result.left_out},
        }
    )
