"""docs/compatibility.md is what the tests say."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made():
    spec = importlib.util.spec_from_file_location("compatibility", ROOT / "experiments" / "compatibility.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_made_from_the_tests(made):
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), "run: python experiments/compatibility.py"


def test_every_mark_is_a_row_under_its_kind(made, tmp_path):
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_one.py").write_text(
        "import pytest\n"
        '@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.compatible("Tables", "a|b", "read"))])\n'
        '@pytest.mark.compatible("Photos", "GIF", "its first picture")\n'
        "def test(x): ...\n",
        encoding="utf-8",
    )
    page = made.page(tests)
    assert page.index("## Photos") < page.index("| GIF | its first picture | `tests/test_one.py` |")
    assert page.index("## Tables") < page.index("| a\\|b | read | `tests/test_one.py` |")
    assert "## Models" not in page


@pytest.mark.parametrize("mark", ['("Cats", "a", "b")', '("Photos", "a")', '("Photos", "a", str(1))'])
def test_a_mark_that_is_no_row_is_named(made, tmp_path, mark):
    (tmp_path / "test_one.py").write_text(f"import pytest\n@pytest.mark.compatible{mark}\ndef test(): ...\n")
    with pytest.raises(ValueError, match=r"line 2 of .*test_one\.py: compatible\(\) takes a kind"):
        list(made.rows(tmp_path))
