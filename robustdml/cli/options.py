"""Options that several commands share, and how text becomes values."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click
from click.core import ParameterSource

from robustdml.cli.output import Output, output_options
from robustdml.launcher import is_first
from robustdml.places import special
from robustdml.printable import shown
from robustdml.source_options import SourceOptions

if TYPE_CHECKING:
    from robustdml.data import RetrievalDataset

F = TypeVar("F", bound=Callable[..., Any])


class HomePath(click.Path):
    """A path of files; ``~`` in it is the home folder, as shells do not expand it after the ``=`` of ``--out=~/x``."""

    def __init__(self, **checks: Any) -> None:
        super().__init__(path_type=Path, **checks)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType.convert`."""
        text = str(value)
        if not text.strip() or "\0" in text:
            self.fail(f"'{text}' is no path: it is empty, or holds a zero", param, ctx)
        try:
            path = Path(text).expanduser() if text.startswith("~") else Path(text)
        except RuntimeError:
            self.fail(f"there is no user with the home folder of '{text}': write the whole path", param, ctx)
        if str(path).startswith("~"):  # of ./~/x, which is a folder called so, and stays one
            path = Path.cwd() / path
        if special(path):
            self.fail(f"'{text}' is no place of files but the system's own: choose another path", param, ctx)
        return super().convert(str(path), param, ctx)


def _given() -> Iterator[tuple[click.Parameter, list[str]]]:
    """What was said to the running command, on its line or in its file, each value as it would be typed."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if not parameter.expose_value or source not in {ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP}:
            continue
        value = context.params[name]
        each = value if parameter.multiple or parameter.nargs != 1 else [value]
        yield parameter, [_written(parameter, item) for item in each]


def _written(parameter: click.Parameter, value: object) -> str:
    if isinstance(value, tuple):
        return ("x" if isinstance(parameter.type, SidesType) else ",").join(map(str, value))
    return str(value)


def command_line() -> str:
    """The running command with all that was said to it, on its line or in its file, as a shell takes it."""
    words = ["robustdml", click.get_current_context().info_name or ""]
    for parameter, values in _given():
        if isinstance(parameter, click.Argument):
            words += values
        elif isinstance(parameter, click.Option) and parameter.is_flag:
            words += [parameter.opts[0]] if values == ["True"] else []
        else:
            words += [word for value in values for word in (parameter.opts[0], value)]
    return shown(shlex.join(words))


def configuration() -> str:
    """The same as a TOML file, which ``--config`` reads."""
    lines = [f"[{click.get_current_context().info_name}]"]
    for parameter, values in _given():
        name = parameter.name or ""
        if name in {"as_json", "quiet", "dry_run"}:
            continue
        key = parameter.opts[0].removeprefix("--").replace("-", "_") if parameter.opts[0].startswith("--") else name
        texts = [json.dumps(shown(value), ensure_ascii=False) for value in values]
        if isinstance(parameter, click.Option) and parameter.is_flag:
            lines.append(f"{key} = {values[0].lower()}")
        elif parameter.multiple or parameter.nargs != 1:
            lines.append(f"{key} = [{', '.join(texts)}]")
        else:
            number = isinstance(parameter.type, click.types.IntParamType | click.types.FloatParamType)
            lines.append(f"{key} = {values[0] if number else texts[0]}")
    return "\n".join(lines)


class SidesType(click.ParamType[Any]):
    """A side in pixels, or height and width: ``224``, ``256x128``."""

    name = "sides"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType.convert`."""
        if not isinstance(value, str):
            return value
        parts = value.lower().replace("\N{MULTIPLICATION SIGN}", "x").split("x")
        if len(parts) > 2 or not all(part.strip().isdecimal() for part in parts):
            self.fail(f"'{value}' is no side in pixels, nor height and width, as in 224 or 256x128", param, ctx)
        sides = [int(part) for part in parts]
        return sides[0] if len(set(sides)) == 1 else tuple(sides)


def data_options(command: F, *, required: bool = True) -> F:
    """``--data``, ``--root`` and ``--allow-outside``."""
    outside = click.option(
        "--allow-outside", is_flag=True, help="Let a table or a link of the data lead to images outside of its folder."
    )
    root = click.option(
        "--root", type=HomePath(), help="Folder of a data set that is named; of a table, of its images."
    )
    name = click.option(
        "--data",
        required=required,
        metavar="NAME|PATH",
        help="Data set by name (see 'robustdml list datasets'), or your own: a folder of classes, or a table.",
    )
    return name(root(outside(command)))


def skip_broken_option(command: F) -> F:
    """``--skip-broken``."""
    return click.option(
        "--skip-broken", is_flag=True, help="Go on without images that cannot be read; they are counted and listed."
    )(command)


def read_data(
    data: str, root: Path | None, output: Output, skip_broken: bool = False, allow_outside: bool = False
) -> RetrievalDataset:
    """The data set of ``--data`` and ``--root``; where it was given by its path, what that was taken for is said."""
    from robustdml.data import DATASETS, load_dataset

    dataset = load_dataset(data, root, skip_missing=skip_broken, allow_outside=allow_outside)
    if data not in DATASETS and is_first():
        output.note(f"Data: {dataset.title}, read as '{dataset.name}'. {dataset.protocol}")
    return dataset


def _numbers(context: click.Context, option: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    """Three numbers, or one for all three channels: ``0.485,0.456,0.406``, ``1/255``."""
    if text is None:
        return None
    try:
        parts = [Fraction(part.strip()) for part in text.split(",")]
    except (ValueError, ZeroDivisionError):
        raise click.BadParameter(f"'{text}' is no number, nor three with commas between them") from None
    values = tuple(float(part) for part in parts)
    return values * 3 if len(values) == 1 else values


def source_options(command: F) -> F:
    """What sources of models do not say themselves; the command gets one ``options``, a `SourceOptions`."""

    @click.option("--arch", metavar="SOURCE", help="The network of a file of weights, such as timm:resnet50.")
    @click.option("--mean", callback=_numbers, help="Of the pixels, in [0, 1], which is taken away: 0.485,0.456,0.406.")
    @click.option("--std", callback=_numbers, help="By which is then divided: 0.229,0.224,0.225, or 1/255.")
    @click.option(
        "--image-size",
        "--size",
        type=SidesType(),
        metavar="S|HxW",
        help="Side of the images in pixels for all models, or 256x128 (height, width) [default: each its own].",
    )
    @click.option("--crop", type=float, help="Share of the shorter side that the square keeps, such as 0.875.")
    @click.option("--interpolation", type=click.Choice(["nearest", "bilinear", "bicubic"]), help="Of the resize.")
    @click.option("--keep-head", is_flag=True, help="Leave the last layer of a file of weights on.")
    @click.option("--trust-pickle", is_flag=True, help="Unpickle files, which runs the code that they hold.")
    @click.option("--trust-code", is_flag=True, help="Run the code that a run folder names as its backbone.")
    @wraps(command)
    def with_options(**given: Any) -> Any:
        own = {name: given.pop(name) for name in _OF_SOURCES}
        return command(options=SourceOptions(size=given.pop("image_size"), **own), **given)

    return cast(F, with_options)


_OF_SOURCES = ("arch", "mean", "std", "crop", "interpolation", "keep_head", "trust_pickle", "trust_code")


def run_options(command: F) -> F:
    """``--device``, and what `output_options` adds."""
    device = click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ... or auto.")
    return device(output_options(command))
