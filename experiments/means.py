"""Mean and standard deviation over seeds, as the tables of results.md: python experiments/means.py RUN/results.json."""

import json
import statistics
import sys
from pathlib import Path

results = json.loads(Path(sys.argv[1]).read_text())
names = {entry["spec"]: entry["name"] for entry in results["attacks"]}
groups: dict[tuple[str, str], list[float]] = {}
for model in results["models"]:
    key = model["method"]
    groups.setdefault(("clean", key), []).append(model["clean"]["metrics"]["recall_at_1"])
method = {model["name"]: model["method"] for model in results["models"]}
for cell in results["cells"]:
    groups.setdefault((names[cell["attack"]], method[cell["model"]]), []).append(
        cell["score"]["metrics"]["recall_at_1"]
    )
for worst in results["worst"]:
    groups.setdefault(("worst case", method[worst["model"]]), []).append(worst["score"]["metrics"]["recall_at_1"])
for row in dict.fromkeys(name for name, _ in groups):
    values = [groups[row, key] for key in ("st", "mdprop")]
    print(f"| {row} | " + " | ".join(f"{statistics.mean(v):.3f} ± {statistics.stdev(v):.3f}" for v in values) + " |")
