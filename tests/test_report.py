"The report page of this repository: complete, with links that lead somewhere, and the same bytes every time."
import re
import shutil
from urllib.parse import unquote

import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup

from conftest import ROOT

RESULTS = [p for p in sorted((ROOT / "reports").glob("*")) if p.suffix in (".csv", ".md", ".png", ".svg")]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "A copy of what the report reads, without one of the score files"
    place = tmp_path_factory.mktemp("repository")
    skip = shutil.ignore_patterns(".*", "notebooks", "chapters", "index.html")
    for name in ("nbs", "reports", "scores", "checkpoints"): shutil.copytree(ROOT / name, place / name, ignore=skip)
    for name in ("params.yaml", "dvc.yaml", "data.dvc", "LICENSE", "CITATION.cff", "README.md"): shutil.copy(ROOT / name, place / name)
    (place / "scores/mnist/kmnist7k/default.parquet").unlink()
    write_report(place, place / "reports")
    return place


@pytest.fixture(scope="module")
def pages(place):
    "Every page, parsed"
    paths = [place / "reports/index.html", *sorted((place / "reports/chapters").glob("*.html"))]
    return {p: BeautifulSoup(p.read_text(), "html.parser") for p in paths}


@pytest.fixture
def index(place, pages): return pages[place / "reports/index.html"]


def cells(table): return [[c.text for c in row.find_all(["th", "td"])] for row in table.find_all("tr")]


@pytest.mark.parametrize("result", RESULTS, ids=lambda p: p.name)
def test_every_result_is_on_the_page(result, index):
    assert index.find("a", href=result.name)
    if result.suffix == ".md":
        header, _, *rows = [[c.strip() for c in line.strip()[1:-1].split("|")] for line in result.read_text().splitlines()]
        assert [header, *rows] in [cells(t) for t in index.find_all("table")]
    if result.suffix == ".png":
        assert len(index.find("img", src=result.name)["alt"]) > 20


def test_links_lead_somewhere(pages):
    anchors = {p: {t["id"] for t in soup.find_all(id=True)} for p, soup in pages.items()}
    for page, soup in pages.items():
        links = [t["href"] for t in soup.find_all(["a", "link"], href=True)] + [t["src"] for t in soup.find_all("img")]
        for link in (l for l in links if not l.startswith(("http:", "https:", "data:"))):
            path, _, anchor = link.partition("#")
            target = (page.parent / unquote(path)).resolve() if path else page
            assert target.exists(), (page.name, link)
            if anchor: assert unquote(anchor) in anchors[target], (page.name, link)


def test_nothing_comes_from_a_network(pages, place):
    for page, soup in pages.items():
        assert not soup.find_all(["script", "iframe", "object", "embed"]), page.name
        assert not [t for t in soup.find_all(["img", "link", "source"]) if re.match("(https?:)?//", t.get("src", "") + t.get("href", ""))]
    assert not re.search(r"@import|url\(", (place / "reports/chapters/style.css").read_text())


def test_chapters(pages, place):
    notebooks = {p.stem for p in (ROOT / "nbs").glob("[0-9]*.ipynb")}
    assert {p.stem for p in pages} == notebooks | {"index"}
    for page, soup in pages.items():
        assert len(soup.find_all("h1")) == 1, page.name
        for code in soup.find_all(["pre", "code"]): code.decompose()
        assert "$$" not in soup.text and "#|" not in soup.text, page.name
    assert sum(p.stat().st_size for p in (place / "reports/chapters").iterdir()) < 3e6


def test_missing_scores_are_named(index, place):
    (table,) = index.find("section", id="what-was-not-run-and-why").find_all("table")
    named = {row[0] for row in cells(table)}
    wanted = yaml.safe_load((place / "dvc.yaml").read_text())["stages"]["score"]["foreach"].values()
    missing = {f"scores/{s['model']}/{s['source']}/{s['setting']}.parquet" for s in wanted}
    missing = {m for m in missing if not (place / m).exists()}
    assert "scores/mnist/kmnist7k/default.parquet" in missing and missing <= named
    assert {n for n in named if n.startswith("scores/")} == missing


def test_score_files(index, place):
    header, *rows = cells(index.find("section", id="scores").find("table"))
    table = pd.DataFrame(rows, columns=header)
    files = {p.relative_to(place / "scores").with_suffix("").parts for p in (place / "scores").rglob("*.parquet")}
    assert set(zip(table["model"], table["set"], table["setting"])) == files
    total = f"{table['NFE'].astype(int).sum():,} network evaluations".replace(",", " ")
    assert total in index.find("section", id="scores").text


def test_same_bytes_every_time_and_nothing_old(place):
    def written(): return {p: p.read_bytes() for p in [place / "reports/index.html", *(place / "reports/chapters").iterdir()]}
    first = written()
    (place / "reports/chapters/99_gone.html").touch()
    write_report(place, place / "reports")
    assert written() == first
