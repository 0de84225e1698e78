"""``robustdml doctor``."""

from __future__ import annotations

from pathlib import Path

import click

from robustdml.cli.options import HomePath
from robustdml.cli.output import Output, output_options
from robustdml.cli.verify import UNSOUND
from robustdml.doctor import Diagnosis, examine, writable
from robustdml.errors import RobustDMLError

#: The exit code where nothing can be done on this machine as it is.
_BROKEN = RobustDMLError.exit_code


@click.command()
@click.option("--data", metavar="NAME|PATH", help="Also look at this data set, as 'robustdml evaluate' reads it.")
@click.option("--root", type=HomePath(), help="Its folder, where it needs one.")
@click.option("--out", type=HomePath(), help="Also look at whether a run can be written here.")
@click.option("--device", default="auto", show_default=True, help="Also look at this one: cpu, cuda, cuda:1, ...")
@output_options
def doctor(data: str | None, root: Path | None, out: Path | None, device: str, output: Output) -> None:
    """Say whether this machine can do the work, what is wrong, and how to mend it.

    Looks at versions and whether they fit, tries torch beside torchvision and each device with its bf16, and at the
    optional extras, the caches, the disks and, with --data, a data set. Changes nothing and asks no network.

    Exit code 0: all is well, or there are notes alone; 4: something does not work, and robustdml does without it; 2:
    robustdml cannot work here.
    """
    if root is not None and data is None:
        raise click.UsageError("--root goes with --data: the data set that lies there")
    findings = examine(device)
    if out is not None:
        findings.append(writable("run folder", out, "choose another --out"))
    if data is not None:
        findings.append(_data(data, root))
    broken, problems, notes = (
        sum(found.state == state for found in findings) for state in ("broken", "problem", "note")
    )
    code = _BROKEN if broken else UNSOUND if problems else 0
    width = max(len(found.name) for found in findings)
    for found in findings:
        output.line(f"{found.state:<7}  {found.name:<{width}}  {found.found}")
        if found.remedy:
            output.line(f"{'':<7}  {'':<{width}}  -> {found.remedy}")
    output.line(f"Broken: {broken}. Problems: {problems}. Notes: {notes}.")
    output.document({"exit_code": code, "findings": [found.to_dict() for found in findings]})
    click.get_current_context().exit(code)


def _data(data: str, root: Path | None) -> Diagnosis:
    from robustdml.data import load_dataset

    try:
        dataset = load_dataset(data, root, skip_missing=True, allow_outside=True)
    except RobustDMLError as error:
        return Diagnosis("data", "problem", str(error), "docs/compatibility.md says what is read, and how")
    left = sum(len(part.names) for part in dataset.left_out)
    counts = f"{len(dataset.query):,} queries, {len(dataset.gallery):,} in the gallery"
    return Diagnosis("data", "ok", f"{dataset.title}: {counts}; {left:,} files left out. {dataset.protocol}")
