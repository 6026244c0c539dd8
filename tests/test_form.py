"The form of the chapters: order, width and size of cells, and imports that only go down."
import ast
import re

import nbformat
import pytest

from conftest import ROOT

WINGS = "nbs", "nbs/methods", "nbs/study"
CHAPTERS = [p for wing in WINGS for p in sorted((ROOT / wing).glob("[0-9]*.ipynb"))]
NOTEBOOKS = sorted((ROOT / "nbs").rglob("*.ipynb"))


def code(notebook): return [c for c in nbformat.read(notebook, 4).cells if c.cell_type == "code"]


def parsed(cell):
    "The statements of a cell without IPython's own lines; none of a cell in another language"
    try: return ast.parse(re.sub(r"^[%!].*$", "", cell.source, flags=re.M)).body
    except SyntaxError: return []


def docstring_lines(cell):
    "How many lines of a cell the docstrings of its functions and classes take"
    found = [n.body[0] for statement in parsed(cell) for n in ast.walk(statement)
             if isinstance(n, (ast.FunctionDef, ast.ClassDef))
             and ast.get_docstring(n, clean=False) is not None]
    return sum(n.end_lineno - n.lineno + 1 for n in found)


def exported(cell): return re.search(r"^#\|\s*export\b", cell.source, re.M)


def module(notebook):
    "The module that a chapter exports, below lmd; None for one without"
    found = re.search(r"#\|\s*default_exp (\S+)", "\n".join(c.source for c in code(notebook)))
    return found and found[1]


@pytest.mark.parametrize("wing", WINGS)
def test_numbers_have_no_gap(wing):
    numbers = [int(re.match(r"(\d+)_", p.name)[1]) for p in CHAPTERS if p.parent == ROOT / wing]
    first = 0 if wing == "nbs" else 1
    assert sorted(numbers) == list(range(first, max(numbers) + 1))


def test_every_module_has_a_chapter():
    modules = {m for m in map(module, CHAPTERS) if m}
    files = {p.relative_to(ROOT / "lmd").with_suffix("") for p in (ROOT / "lmd").rglob("[!_]*.py")}
    assert {m.replace(".", "/") for m in modules} == {f.as_posix() for f in files}
    for notebook in CHAPTERS:
        wing = notebook.parent.name.replace("nbs", "")
        name = re.sub(r"^\d+_", "", notebook.stem)
        assert module(notebook) in (None, f"{wing}.{name}".strip(".")), notebook.name


def test_modules_are_short():
    lines = {p.name: len(p.read_text(encoding="utf-8").splitlines()) for p in (ROOT / "lmd").glob("[!_]*.py")}
    assert {name: n for name, n in lines.items() if n > 400} == {}


def test_imports_go_down():
    place = {module(p): i for i, p in enumerate(CHAPTERS) if module(p)}
    for name, i in place.items():
        own = ROOT / "lmd" / (name.replace(".", "/") + ".py")
        for node in ast.walk(ast.parse(own.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom): continue
            if not (node.level or (node.module or "").startswith("lmd.")): continue
            parents = name.split(".")[:-node.level] if node.level else []
            target = ".".join([*parents, (node.module or "").removeprefix("lmd.")])
            if not target: continue                                 # the package itself, for its version
            assert place[target] < i, f"{name} imports {target}"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.relative_to(ROOT / "nbs").as_posix())
def test_cells(notebook):
    cells = code(notebook)
    wide = [c.id for c in cells if any(len(line) > 110 for line in c.source.splitlines())]
    assert wide == [], "lines of more than 110 characters"
    for cell in filter(exported, cells):
        lines = [line for line in cell.source.splitlines() if not line.startswith("#|")]
        length = len(lines) - docstring_lines(cell)
        assert length <= 25, f"{cell.id} has {length} lines without its docstrings"
        defined = [n.name for n in parsed(cell) if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
        public = [name for name in defined if name[0] != "_"]
        assert len(public) <= 1, f"{cell.id} has {', '.join(public)}"


@pytest.mark.parametrize("notebook", CHAPTERS, ids=lambda p: p.relative_to(ROOT / "nbs").as_posix())
def test_a_chapter_opens_with_prose(notebook):
    title, *cells = nbformat.read(notebook, 4).cells
    assert re.fullmatch(r"# [^\n]+\n\n> [^\n]+(\n\n.+)?", title.source, re.S), "title and one line of summary"
    for cell in cells:
        hidden = re.match(r"#\|\s*(hide|default_exp)", cell.source)
        if cell.cell_type == "code" and not hidden:
            imports = all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in parsed(cell))
            assert imports and exported(cell), f"{cell.id} stands before the first prose"
        if cell.cell_type == "markdown": break


def test_pictures_in_chapters_are_small():
    for notebook in NOTEBOOKS:
        for cell in code(notebook):
            pictures = [o["data"]["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]
            assert sum(len(p) * 3 / 4 for p in pictures) <= 60e3, (notebook.name, cell.id)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.relative_to(ROOT / "nbs").as_posix())
def test_outputs_hold_no_state_of_progress_bars(notebook):
    assert "widgets" not in nbformat.read(notebook, 4).metadata, "remove them, see scripts/notebooks.sh"
