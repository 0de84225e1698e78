"""How benchmarks measure: seconds of the processor, in turns, as ratios in one run; and where they write it.

On a shared machine the speed drifts, and only what ran side by side can be compared. Each round runs everything once;
a ratio is the median over the rounds, with the smallest and the largest of them.
"""

from __future__ import annotations

import json
import platform
import re
import shlex
import statistics
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

import torch

_ROOT = Path(__file__).parents[1]
_PAGE, _DATA = _ROOT / "docs" / "performance.md", _ROOT / "docs" / "performance.json"
#: Where `make bench` puts the libraries that are compared with: theirs are other versions of what others need.
PEERS = _ROOT / "build" / "peers"


class Row(dict[str, float | str]):
    """A line of a table: ``what``, ``seconds`` (median), ``ratio`` (median), ``low`` and ``high``, and what else."""


def in_turns(runs: Mapping[str, Callable[[], float]], unit: str, rounds: int) -> list[Row]:
    """Run everything in turns, once to warm up and then ``rounds`` times; each returns the seconds that it took."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            taken = run()
            if number:
                seconds[name].append(taken)
    rows = []
    for name, found in seconds.items():
        ratios = [own / other for own, other in zip(found, seconds[unit], strict=True)]
        rows.append(
            Row(
                what=name,
                seconds=statistics.median(found),
                ratio=statistics.median(ratios),
                low=min(ratios),
                high=max(ratios),
            )
        )
    return rows


def machine() -> str:
    """The processor or accelerator, the threads and the library that measured."""
    cpu = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        text = information.read_text()
        named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
        cpu = named[1] if named else cpu
        numbers = re.findall(r"^(?:cpu family|model)\s*:\s*(\d+)$", text, re.MULTILINE)[:2]
        cpu += f" (family {', model '.join(numbers)})" if numbers else ""
        cpu += ", bf16" if "avx512_bf16" in text or "amx_bf16" in text else ", no bf16"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu
    return f"{device}; {torch.get_num_threads()} thread; torch {torch.__version__}"


def peer(package: str, module: str | None = None) -> bool:
    """Whether a library to compare with is there; says how to get it where it is not."""
    if str(PEERS) not in sys.path:
        sys.path.append(str(PEERS))
    try:
        metadata.version(package)
        __import__(module or package)
    except ImportError as error:
        print(f"{package} is not compared with ({error}): 'make bench' installs it into {PEERS}")
        return False
    return True


def publish(part: str, intro: str, rows: list[Row], columns: Mapping[str, str]) -> None:
    """Print a table, and write it into its part of docs/performance.md and into docs/performance.json.

    Args:
        part: the name of the part; the page has marks of that name.
        intro: what was measured, in a sentence.
        columns: keys of the rows, and their headings.
    """
    command = shlex.join(["python", str(Path(sys.argv[0])), *sys.argv[1:]])
    lines = [
        f"{intro} {machine()}. `{command}`",
        "",
        "| " + " | ".join(columns.values()) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(_shown(row.get(key, "")) for key in columns) + " |" for row in rows),
    ]
    print("\n".join(lines) + "\n")
    known = json.loads(_DATA.read_text()) if _DATA.is_file() else {}
    known[part] = {"machine": machine(), "command": command, "what": intro, "rows": rows}
    _DATA.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    text, count = re.subn(
        rf"(<!-- {part}: made by [^>]* -->\n).*?(<!-- end of {part} -->)",
        lambda marks: marks[1] + "\n" + "\n".join(lines) + "\n\n" + marks[2],
        _PAGE.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    if count != 1:
        raise ValueError(f"docs/performance.md has {count} parts '{part}', and should have one")
    _PAGE.write_text(text, encoding="utf-8")


def _shown(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value < 1 else f"{value:.2f}"


RATIOS = {"what": "", "seconds": "CPU s", "ratio": "ratio", "low": "smallest", "high": "largest"}
