"""What the page of a large run costs: 10 models under 60 attacks, with as many pictures as fit.

Run: python bench/report_page.py [--models 10] [--attacks 60] [--queries 1000] [--rounds 5]

The run is made up: what a page costs depends on how much it holds, and not on whether it is true. The limits are 5 s
to render without torch, 12 MB, and 2 s in headless Chromium from the request to a page that answers.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from robustdml.results import Example, Hit, Results
from robustdml.threat import ThreatModel

# The tests have a generator of runs whose numbers agree with each other, as results must; a second one would only rot.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from random_run import random_run

_PICTURES, _SIDE = 300, 64

#: Renders in a process of its own, as `robustdml report` does, and says whether torch came along.
_RENDER = """
import sys, time
from pathlib import Path
started = time.perf_counter()
from robustdml.reports import write_report
write_report(Path(sys.argv[1]))
print(time.perf_counter() - started, "torch" in sys.modules)
"""


def with_pictures(results: Results, folder: Path) -> Results:
    """The run with two examples for each model and attack, of noise: pictures that no format makes smaller."""
    (folder / "images").mkdir()
    for number in range(_PICTURES):
        Image.effect_noise((_SIDE, _SIDE), 90 + number % 20).convert("RGB").save(folder / f"images/{number}.png")
    drawn = 0

    def picture() -> str:
        nonlocal drawn
        drawn += 1
        return f"images/{drawn % _PICTURES}.png"

    def hits() -> tuple[Hit, ...]:
        return tuple(
            Hit(id=rank, class_name=results.queries.class_names[rank], relevant=rank % 2 == 0, image=picture())
            for rank in range(5)
        )

    examples = tuple(
        Example(
            model=model.name,
            attack=attack.spec,
            threat=ThreatModel(8 / 255),
            query_id=query,
            class_name=results.queries.class_names[results.queries.classes[query]],
            image=picture(),
            adversarial_image=picture(),
            perturbation_image=picture(),
            amplification=16.0,
            clean_top=hits(),
            adversarial_top=hits(),
        )
        for model in results.models
        for attack in results.attacks
        for query in range(2)
    )
    return results.model_copy(update={"examples": examples})


def opened(browser: Browser, address: str) -> tuple[float, float]:
    """Seconds until the load event, and until a click on a column has sorted the first table and been painted."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    started = time.perf_counter()
    page.goto(address, wait_until="load")
    loaded = time.perf_counter() - started
    page.evaluate(
        """() => new Promise(done => {
          const head = document.querySelector("table.budget th:nth-child(2)");
          head.querySelector("button").click();
          if (head.getAttribute("aria-sort") !== "descending") throw Error("the table was not sorted");
          requestAnimationFrame(() => setTimeout(done));
        })"""
    )
    answered = time.perf_counter() - started
    page.close()
    return loaded, answered


@click.command()
@click.option("--models", default=10, show_default=True)
@click.option("--attacks", default=60, show_default=True)
@click.option("--queries", default=1000, show_default=True)
@click.option("--rounds", default=5, show_default=True)
def main(models: int, attacks: int, queries: int, rounds: int) -> None:
    """Print seconds and megabytes."""
    run = random_run(
        models=tuple(f"model-{number}" for number in range(models)),
        attacks=tuple(f"library.attack-{number}" for number in range(attacks)),
        budgets=(2 / 255, 8 / 255),
        queries=queries,
        classes=tuple(f"class {number}" for number in range(100)),
        maps=2,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with_pictures(run, folder).save(folder)
        click.echo(f"{models} models, {attacks} attacks, 2 budgets, {queries} queries, median of {rounds} rounds")
        taken, torches = [], set()
        for _ in range(rounds):
            command = [sys.executable, "-c", _RENDER, name]
            seconds, torch = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            taken.append(float(seconds))
            torches.add(torch)
        click.echo(f"reading and rendering  {statistics.median(taken):.2f} s, torch imported: {', '.join(torches)}")
        page = folder / "report.html"
        click.echo(f"size                   {page.stat().st_size / 1e6:.2f} MB")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            times = [opened(browser, page.as_uri()) for _ in range(rounds)]
            browser.close()
        loaded, answered = (statistics.median(column) for column in zip(*times, strict=True))
        click.echo(f"loaded                 {loaded:.2f} s")
        click.echo(f"answers a click        {answered:.2f} s")


if __name__ == "__main__":
    main()
