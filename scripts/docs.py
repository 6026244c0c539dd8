"""Build the documentation into _site/: README, chapters, tutorials and executed pages, by Sphinx and MyST-NB.

Nothing is executed: the notebooks are shown with the outputs that they are committed with. The source tree
has the repository's own layout, so that links between notebooks lead where they lead on disk.
"""
import re
import shutil
import sys
from pathlib import Path

import nbformat
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_site"
WORK, SOURCE = SITE / ".work", SITE / ".work/source"
PARTS = { # heading: notebooks, in reading order
    "The method and the library": "nbs/[0-9]*.ipynb",
    "Tutorials": "nbs/tutorials/*.ipynb",
    "Tables and figures of the paper": "reports/*/*.ipynb",
    "Other methods": "nbs/methods/*.ipynb",
    "The study": "nbs/study/*.ipynb",
}
STYLE = """/* room for 110 characters of code; wide tables scroll, and their lines stay lines */
@media (min-width: 82em) { .content { width: 56em } }
.content pre { font-size: 0.78rem }
.cell_output table { display: block; overflow-x: auto; white-space: nowrap; font-size: 0.85rem }
"""
EXTENSIONS = ["myst_nb", "sphinx-mathjax-offline"]
OPTIONS = dict(
    project="lmd", html_title="lmd", html_theme="furo", extensions=EXTENSIONS, nb_execution_mode="off",
    nb_render_markdown_format="gfm", nb_output_stderr="remove", nb_merge_streams=True,
    nb_number_source_lines=False,
    myst_enable_extensions=["dollarmath", "amsmath"], myst_heading_anchors=3, html_show_sphinx=False,
    html_copy_source=False, html_show_sourcelink=False, html_static_path=["static"],
    html_css_files=["wide.css"], copyright="2026, the lmd authors",
    nb_execution_cache_path=str(WORK / "cache"),
    suppress_warnings=["myst.header", "mystnb.unknown_mime_type", "misc.highlighting_failure"])


def shown(cell, page):
    "A cell as a reader sees it: no directives of nbdev, on a page its code folded; None where hidden"
    directives = re.findall(r"^#\|\s*(.*)$", cell.source, re.M)
    if "hide" in directives or any(d.startswith("default_exp") for d in directives): return None
    if page and cell.cell_type == "code" and not cell.outputs: return None
    cell.source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.M).strip("\n")
    tags = cell.metadata.get("tags", [])
    imports = re.match(r"(from|import) ", cell.source) and "export" in directives
    if cell.cell_type == "code" and (page or imports): tags = [*tags, "hide-input"]
    cell.metadata = {"tags": tags}
    return cell


def with_links(text, place):
    "Markdown whose links to notebooks of the paper lead to the executed pages, and to other files nowhere"
    def target(match):
        words, link = match[1], match[2]
        if re.match(r"\w+:|#", link): return match[0]
        path, _, anchor = link.partition("#")
        file = (ROOT / place.parent / path).resolve()
        if file.parent == ROOT / "nbs/paper": file = ROOT / f"reports/{file.stem}/{file.name}"
        if not file.is_relative_to(ROOT) or not (SOURCE / file.relative_to(ROOT)).is_file(): return words
        relative = Path(*[".."] * len(place.parent.parts)) / file.relative_to(ROOT)
        return f"[{words}]({relative.as_posix()}{'#' * bool(anchor)}{anchor})"
    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", target, text)


def copy_notebook(path):
    "Write the reader's version of a notebook into the source tree"
    place, notebook = path.relative_to(ROOT), nbformat.read(path, 4)
    page = place.parts[0] == "reports"
    notebook.cells = [c for c in (shown(cell, page) for cell in notebook.cells) if c]
    for cell in notebook.cells:
        if cell.cell_type == "markdown": cell.source = with_links(cell.source, place)
    nbformat.write(notebook, SOURCE / place)


def contents(notebooks):
    "The home page's lists of chapters"
    def listed(heading, paths):
        names = "\n".join(p.relative_to(ROOT).with_suffix("").as_posix() for p in paths)
        return f"```{{toctree}}\n:caption: {heading}\n:maxdepth: 1\n:hidden:\n\n{names}\n```"
    return "\n\n".join(listed(*item) for item in notebooks.items())


def main():
    shutil.rmtree(SITE, ignore_errors=True)
    notebooks = {heading: sorted(ROOT.glob(pattern)) for heading, pattern in PARTS.items()}
    paths = sum(notebooks.values(), [])
    for path in paths:                                  # all places first: links are looked up among them
        (SOURCE / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        (SOURCE / path.relative_to(ROOT)).touch()
    for path in paths: copy_notebook(path)
    for picture in ROOT.glob("reports/*/*.png"): shutil.copy(picture, SOURCE / picture.relative_to(ROOT))
    (SOURCE / "static").mkdir()
    (SOURCE / "static/wide.css").write_text(STYLE, encoding="utf-8")
    readme = with_links((ROOT / "README.md").read_text(encoding="utf-8"), Path("README.md"))
    (SOURCE / "index.md").write_text(readme + "\n\n" + contents(notebooks) + "\n", encoding="utf-8")
    html, trees = WORK / "html", WORK / "doctrees"
    app = Sphinx(SOURCE, None, html, trees, "html", confoverrides=OPTIONS, warning=sys.stderr,
                 warningiserror=True)
    app.build()
    for path in html.iterdir(): path.rename(SITE / path.name)
    shutil.rmtree(WORK)
    print(f"The documentation is in {SITE / 'index.html'}")
    return app.statuscode


if __name__ == "__main__": sys.exit(main())
