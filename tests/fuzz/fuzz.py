"""Feed the readers of files and texts with what a fuzzer makes of good ones: ``make fuzz``.

Whatever is read, a reader gives an answer or raises one of robustdml's own errors; any other exception is a fault, and
so is an input that takes longer than ten seconds. Guided by coverage where atheris is installed, else by chance alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

try:
    import atheris
except ImportError:
    atheris = None

from malformed_drawing import Drawing

#: An input that takes longer is a fault; and no input is larger.
_SLOW, _LARGEST = 10.0, 1 << 20
#: Folders of the checkout whose code is ours.
_OURS = ("/robustdml/", "/attacks/", "/reports/")


class Fuzzing:
    """Runs inputs, and gathers what is wrong."""

    def __init__(self, readers: Any, seconds: float) -> None:
        self.readers, self.ends, self.seconds = readers, time.monotonic() + seconds, seconds
        self.counts = dict.fromkeys((name for name, _, _ in readers.all), 0)
        self.understood = dict(self.counts)
        self.faults: dict[str, tuple[str, bytes]] = {}
        self.slowest = 0.0

    def one(self, data: bytes) -> None:
        """An input: its first byte says which reader gets the rest."""
        if time.monotonic() > self.ends:
            self.finish()
        if not data:
            return
        name, read, _ = self.readers.all[data[0] % len(self.readers.all)]
        self.counts[name] += 1
        started = time.process_time()
        try:
            read(data[1:])
            self.understood[name] += 1
        except self.readers.refused:
            pass
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            ours = [frame for frame in frames if any(part in frame.filename for part in _OURS)] or frames
            place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
            self.fault(f"{name}: {type(error).__name__} at {place}", f"{error}", data)
        finally:
            self.readers.restored(name)
        taken = time.process_time() - started
        self.slowest = max(self.slowest, taken)
        if taken > _SLOW:
            self.fault(f"{name}: slow", f"{taken:.1f} s", data)

    def fault(self, key: str, said: str, data: bytes) -> None:
        """Keep the first input of each fault, and go on."""
        if key not in self.faults:
            self.faults[key] = said, data
            print(f"FAULT {key}: {said[:200]}\n  {data[:300]!r}", flush=True)
            (Path(tempfile.gettempdir()) / f"fuzz-{len(self.faults)}").write_bytes(data)

    def finish(self) -> None:
        """Say what was done, and end the program."""
        each = ", ".join(f"{name} {count:,} ({self.understood[name]:,} read)" for name, count in self.counts.items())
        how = "by atheris" if atheris else "by chance"
        print(
            f"{sum(self.counts.values()):,} inputs in {self.seconds:.0f} s {how}: {each}; "
            f"the slowest {self.slowest:.1f} s; {len(self.faults)} faults.",
            flush=True,
        )
        os._exit(bool(self.faults))


def mutated(draw: Drawing, data: bytes) -> bytes:
    """A relative of an input, for the same reader: JSON often as another JSON."""
    inner = data[1:]
    if inner[:1] == b"{" and draw.random.random() < 0.6:
        try:
            return data[:1] + json.dumps(draw.rewritten(json.loads(inner))).encode("utf-8", "surrogatepass")
        except (ValueError, RecursionError, IndexError, TypeError, OverflowError):
            pass
    return data[:1] + draw.damaged(inner)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        world, place, corpus = (Path(folder) / name for name in ("world", "place", "corpus"))
        for path in (world, place, corpus):
            path.mkdir()
        guided = atheris.instrument_imports(include=["robustdml"]) if atheris else contextlib.nullcontext()
        with guided:
            from fuzz_readers import Readers, make_world
        readers = Readers(make_world(world), place)
        seeds = [bytes([number]) + data for number, (_, _, inputs) in enumerate(readers.all) for data in inputs]
        fuzzing, draw = Fuzzing(readers, given.seconds), Drawing(random.Random(given.seed))
        for number, data in enumerate(seeds):
            fuzzing.one(data)
            (corpus / f"{number}").write_bytes(data)
        assert all(fuzzing.understood[name] for name in fuzzing.understood if name != "weights"), fuzzing.understood
        if atheris is None:
            while True:
                fuzzing.one(mutated(draw, draw.one(seeds)))

        def mutator(data: bytes, most: int, seed: int) -> bytes:
            if seed % 2 and data:
                return mutated(Drawing(random.Random(seed)), data)[:most]
            return data[:1] + atheris.Mutate(data[1:], max(1, most - 1))

        options = [
            f"-seed={given.seed + 1}",
            f"-max_len={_LARGEST}",
            "-timeout=120",
            "-rss_limit_mb=8000",
            "-verbosity=0",
        ]
        atheris.Setup([sys.argv[0], *options, str(corpus)], fuzzing.one, custom_mutator=mutator)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
