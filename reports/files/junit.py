"""A run as JUnit XML, which pipelines show as tests: a suite for each model, a test for each thing measured."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from robustdml.printable import plain
from robustdml.results import ModelEntry, Results

from .. import text
from ..index import Index
from ..measurements import Measurement, measurements
from ..thresholds import Violation


def junit_xml(results: Results, missed: Sequence[Violation] = ()) -> str:
    """The measurements of each model as tests.

    A failed attack is an error, a skipped one is skipped, a missed threshold is a failure. So is one on a worst case
    that a flag withholds, which is skipped else. All else passes: without a threshold, a low recall is no failure.
    """
    index = Index.of(results)
    root = ElementTree.Element("testsuites", name="robustdml")
    for model in results.models:
        own = [violation for violation in missed if violation.model == model.name]
        _suite(root, index, model, own)
    return document(root)


def document(root: ElementTree.Element) -> str:
    """The file of suites whose cases are all there; their counts are filled in."""
    for suite in root:
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            suite.set(name, str(sum(case.find(tag) is not None for case in suite.iter("testcase"))))
        suite.set("tests", str(sum(1 for _ in suite.iter("testcase"))))
    for name in ("tests", "failures", "errors", "skipped"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    ElementTree.indent(root)
    # Of its own accord, ElementTree would name the encoding of this computer, whatever the file is written in.
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _suite(root: ElementTree.Element, index: Index, model: ModelEntry, missed: Sequence[Violation]) -> None:
    own = measurements(index, model)
    created = index.results.created.removesuffix("+00:00").removesuffix("Z")
    suite = ElementTree.SubElement(root, "testsuite", name=plain(model.name), timestamp=plain(created))
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (("fingerprint", index.results.fingerprint), ("weights", model.fingerprint)):
        ElementTree.SubElement(properties, "property", name=name, value=plain(value))
    for item in own:
        case = _case(suite, model, item.label, item.seconds)
        _outcome(case, index.metric.title, item, [violation for violation in missed if violation.key == item.key])
    for violation in missed:
        # A bar on something that was not measured has no test to fail.
        if violation.key is None:
            add(_case(suite, model, violation.threshold.text, 0.0), "failure", violation.problem, "threshold")
    suite.set("time", f"{sum(item.seconds for item in own):.3f}")


def _case(suite: ElementTree.Element, model: ModelEntry, name: str, seconds: float) -> ElementTree.Element:
    return ElementTree.SubElement(
        suite, "testcase", classname=plain(model.name), name=plain(name), time=f"{seconds:.3f}"
    )


def _outcome(case: ElementTree.Element, title: str, item: Measurement, missed: Sequence[Violation]) -> None:
    if item.status == "failed":
        add(case, "error", item.reason or "", "attack-failed")
    elif item.status == "skipped":
        add(case, "skipped", item.reason or "", None)
    elif missed:
        add(case, "failure", "; ".join(violation.sentence for violation in missed), "threshold")
    elif item.status == "withheld":
        add(case, "skipped", item.reason or "", None)
    if item.score is not None:
        output = ElementTree.SubElement(case, "system-out")
        output.text = f"{title} {text.fraction(item.score.value)} ({text.interval(item.score)})"


def add(case: ElementTree.Element, tag: str, message: str, kind: str | None) -> None:
    """Say of a test what came of it."""
    found = ElementTree.SubElement(case, tag, message=plain(message))
    if kind is not None:
        found.set("type", kind)
