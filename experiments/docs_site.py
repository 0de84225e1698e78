"""A hook of mkdocs: the pages of the site that lie elsewhere than in docs/, and links out of docs/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
#: Pages that are not in docs/, by where they are.
PAGES = {
    "recipes.md": ROOT / "recipes" / "README.md",
    "changelog.md": ROOT / "CHANGELOG.md",
    "contributing.md": ROOT / "CONTRIBUTING.md",
    "cli.md": ROOT / "build" / "reference" / "cli.md",
    "names.md": ROOT / "build" / "reference" / "names.md",
}
_LINK = re.compile(r"\[([^\[\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add those pages."""
    from mkdocs.structure.files import File  # type: ignore[import-not-found]

    for name, path in PAGES.items():
        files.append(File.generated(config, name, content=path.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Lead links out of docs/ to the page of that file; of a file that is none, say the name."""
    name: str = page.file.src_uri
    # Pages that were made have no place of their own and are written as if they lay in docs/.
    home = DOCS if name in {"cli.md", "names.md"} else PAGES.get(name, DOCS / name).parent
    uris = {path: uri for uri, path in PAGES.items()}

    def led(found: re.Match[str]) -> str:
        target = (home / found[2]).resolve()
        uri = target.relative_to(DOCS).as_posix() if target.is_relative_to(DOCS) else uris.get(target)
        if uri is None and not target.is_file():
            raise ValueError(f"{name} links to '{found[2]}', which is no file")
        return f"[{found[1]}]({'../' * name.count('/')}{uri}{found[3] or ''})" if uri else found[1]

    return _LINK.sub(led, markdown)
