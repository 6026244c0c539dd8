"The commands of the study: what they write, and what they say without their packages."
import json
import re
import shutil
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from conftest import QUICKLY, message
from lmd.methods.classifiers import load_classifier
from lmd.outliers import synthetic_outliers

KLIP = "--setting", "klip", "--device", "cpu"
DEFECTS = {"scar", "blot", "swap"}


@pytest.mark.slow
def test_localise(lmd, model):
    lmd("study", "localise", "digits", "-n", 20, "--model", model, "--setting", "longer", "--device", "cpu",
        "--out", "study/localisation")
    assert pd.read_csv("study/localisation/table.csv").shape == (6, 10)
    with np.load("study/localisation/examples.npz") as e:
        assert set(e.files) == {f"{d} {what}" for d in DEFECTS for what in ("image", "where", "map")}


def test_sensitivity(lmd, model):
    tried = "--band", .04, "--band", 1.5, "--block", 4, "--block", 16, "--chains", 1, "--chains", 2
    sensitivity = "study", "sensitivity", "digits", "--outside", "letters", "-n", 10, "--model", model
    lmd(*sensitivity, *KLIP, *tried, "--out", "study/sensitivity")
    assert len(pd.read_csv("study/sensitivity/table.csv.gz")) == (1 + 3)*2*2
    got = lmd(*sensitivity, *QUICKLY, "--out", "study/none", code=1)
    assert "not one of the method klip" in message(got)


@pytest.mark.slow
def test_compare_maps(lmd, model):
    lmd("study", "compare-maps", "digits", "-n", 10, "--model", model, *KLIP, "--lmd-setting", "longer",
        "--out", "study/maps")
    assert set(pd.read_csv("study/maps/table.csv")["defect"]) == DEFECTS
    with np.load("study/maps/examples.npz") as e: assert e["scar KLIP"].shape == (2, 16, 16)


def test_tomography(lmd, model):
    views = "--views", 4, "--views", 8
    lmd("study", "tomography", *views, "-n", 10, "--model", model, *KLIP, "--out", "study/ct")
    assert len(pd.read_csv("study/ct/table.csv")) == 2*4
    with np.load("study/ct/examples.npz") as e:
        assert sorted(e.files)[:4] == ["4 image", "4 map", "4 mean", "4 where"]


@pytest.mark.slow
def test_frontier(lmd, model, request):
    "On validation images and outliers made from them; then on another set, into the same table"
    request.addfinalizer(lambda: shutil.rmtree("runs/frontier", ignore_errors=True))  # its distances
    frontier = "study", "frontier", "digits", "-n", 20, "--model", model, *QUICKLY, "--out", "study/frontier"
    lmd(*frontier, "--most", 2)
    table = pd.read_csv("study/frontier/table.csv.gz")
    assert set(table["out-of-domain"]) == {f"digits val:{kind}" for kind in synthetic_outliers}
    assert set(table["score"]) == {"ssim", "combined"}
    lmd(*frontier, "--outside", "letters", "--most", 1, "--score", "combined")
    added = pd.read_csv("study/frontier/table.csv.gz")[lambda t: t["out-of-domain"] == "letters"]
    assert set(added["score"]) == {"combined"}
    assert len(added) == table.loc[table["nfe"] == 1, "setting"].nunique()


@pytest.mark.slow
def test_outlier_aware(lmd):
    outside = "--outside", "letters", "--outside", "digits:test:flip"
    options = "--variant", "none", "--variant", "all", "--seed", 1, "-n", 40, "--device", "cpu"
    study = "study", "outlier-aware", "digits", *outside, *options, "--run", "runs/students"
    lmd(*study, "--out", "study/students", "--student", "checkpoints/digits-student",
        "--latent", "checkpoints/digits-latent")
    rows = pd.read_csv("study/students/table.csv")
    assert (len(rows), set(rows["variant"])) == (3*6*2, {"teacher", "none", "all"})
    with np.load("study/students/energies.npz") as e: assert e["all digits:test:flip"].shape == (40,)
    parts = {"teacher", "vae", "unet", "diffusion", "vos", "none", "all"}
    assert parts == set(pd.read_csv("study/students/cost.csv")["part"])
    assert load_classifier("checkpoints/digits-student").size == 16
    lmd(*study, "--out", "study/again")                     # releases nothing, and takes up what is trained
    again = pd.read_csv("study/again/table.csv")
    pd.testing.assert_frame_equal(again.drop(columns="seconds"), rows.drop(columns="seconds"))


@pytest.mark.slow
def test_million(lmd):
    lmd("study", "million", "-n", 200, "--out", "study/million")
    assert pd.read_csv("study/million/table.csv")["images"].tolist() == [20, 200]


def test_page(lmd, tmp_path, monkeypatch):
    "A notebook with parameters of the file and of the command; one value is YAML"
    cells = [nbformat.v4.new_code_cell("text = 'x'\nnumber = 0\nout = ''", metadata={"tags": ["parameters"]}),
             nbformat.v4.new_code_cell("open(f'{out}/said.txt', 'w').write(f'{text} {number + 1}');")]
    (tmp_path / "nbs/paper").mkdir(parents=True)
    kernel = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "nbs/paper/one.ipynb")
    (tmp_path / "params.yaml").write_text("pages: {one: {text: of the file}}")
    monkeypatch.chdir(tmp_path)
    assert lmd("study", "page", "one", "--set", "number=41", "--reports", "told").stdout == "told/one\n"
    assert (tmp_path / "told/one/said.txt").read_text() == "of the file 42"
    assert json.loads((tmp_path / "told/one/one.ipynb").read_text())["cells"]
    assert "has no parameter size" in message(lmd("study", "page", "one", "--set", "size=1", code=1))
    got = lmd("study", "page", "one", "--set", "number", code=2)
    assert "--set takes KEY=VALUE, not number" in got.stderr


PAGES = sorted((Path(__file__).parents[1] / "nbs/paper").glob("*.ipynb"))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_no_result_is_typed_into_prose(page):
    "A ROC-AUC in a page's text would stay when its file changes; three decimals are what tables show"
    cells = [c for c in nbformat.read(page, 4).cells if c.cell_type == "markdown"]
    assert [found for c in cells for found in re.findall(r"(?<![\d.])0?\.\d{3}(?!\d)", c.source)] == []


def test_missing_packages_are_named(lmd, monkeypatch):
    monkeypatch.setitem(sys.modules, "papermill", None)
    monkeypatch.delitem(sys.modules, "lmd.study.pages", raising=False)
    got = message(lmd("study", "page", "table1", code=1))
    assert "needs the package papermill" in got and "lmd[study]" in got
