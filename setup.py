"""Packaging of robustdml.

`attacks/` and `reports/` stand at the top level of the checkout and are installed as `robustdml.attacks` and
`robustdml.reports` (the precedent is faiss, whose `contrib/` is installed as `faiss.contrib`): two plain top-level
packages of those names would collide with the `attacks/` folder that many research repositories have.
"""

from setuptools import find_packages, setup

FOLDERS = {"attacks": "robustdml.attacks", "reports": "robustdml.reports"}


def packages() -> list[str]:
    """The packages under their installed names."""
    found = find_packages(include=["robustdml", "robustdml.*"])
    for folder, name in FOLDERS.items():
        found += [name, *(f"{name}.{sub}" for sub in find_packages(folder))]
    return found


setup(
    packages=packages(),
    package_dir={name: folder for folder, name in FOLDERS.items()},
    package_data={"robustdml": ["py.typed", "citations.bib"], "robustdml.reports.page": ["templates/*"]},
    # The two stubs tell type checkers about a checkout; beside the installed packages they would shadow them.
    exclude_package_data={"robustdml": ["*.pyi"]},
    include_package_data=False,
)
