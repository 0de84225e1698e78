"""``robustdml evaluate --dry-run``: what would be run, and what it would take, on the terminal and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from robustdml.cli.output import Output
from robustdml.cli.summary import flag_data
from robustdml.overview import flag_line
from robustdml.printable import plain

if TYPE_CHECKING:
    from robustdml.evaluation.rehearsal import CellEstimate, Estimate

_GIB = 2**30


def say_estimate(estimate: Estimate, configuration: str, output: Output) -> None:
    """Say models, attack runs, what would be skipped, flags, time and memory, and the configuration."""
    for line in _lines(estimate):
        output.line(plain(line))
    output.line("The configuration, for --config:\n" + configuration)
    output.document(_data(estimate, configuration))


def _lines(estimate: Estimate) -> Iterator[str]:
    yield f"Dry run: two queries were tried on {estimate.device}, and nothing was written."
    yield f"Queries: {estimate.queries:,}, searched in {estimate.gallery:,} images."
    for name, prepared in estimate.models:
        yield f"Model {name}: {prepared}."
    for cell in estimate.cells:
        found = f"about {in_words(cell.seconds)}" if cell.status == "ok" else f"{cell.status}: {cell.reason}"
        yield f"Attack run {_called(cell)}: {found}."
    for spec, seconds in estimate.panels:
        yield f"Panel {spec}: about {in_words(seconds)}."
    for flag in estimate.flags:
        yield flag_line(flag)
    runs = sum(cell.status == "ok" for cell in estimate.cells)
    gpu = "" if estimate.device_memory is None else f", and {estimate.device_memory / _GIB:.1f} GiB of the GPU's"
    yield (
        f"In all {runs} attack runs of {len(estimate.cells)}: about {in_words(estimate.seconds)} "
        f"({in_words(estimate.beside)} of it beside the attacks), and {estimate.memory / _GIB:.1f} GiB of memory{gpu}."
    )
    yield "The time is rough: half of it or twice as much are likely too, as two queries are not all."


def _called(cell: CellEstimate) -> str:
    return f"{cell.model}, {cell.name} at {cell.budget}"


def in_words(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``, ``4 days``."""
    for unit, size, until in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 48 * 3600)):
        if seconds < until:
            value = seconds / size
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 86400:.1f} days"


def _data(estimate: Estimate, configuration: str) -> dict[str, Any]:
    return {
        "exit_code": 0,
        "device": estimate.device,
        "queries": estimate.queries,
        "gallery": estimate.gallery,
        "models": {name: str(prepared) for name, prepared in estimate.models},
        "attack_runs": [vars(cell) for cell in estimate.cells],
        "panels": dict(estimate.panels),
        "flags": [flag_data(flag) for flag in estimate.flags],
        "seconds": estimate.seconds,
        "seconds_beside_attacks": estimate.beside,
        "memory_bytes": estimate.memory,
        "device_memory_bytes": estimate.device_memory,
        "configuration": configuration,
    }
