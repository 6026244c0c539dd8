"The paper's notebooks, run by papermill: on made-up scores whose results are known, and on the committed ones."
import json
from pathlib import Path

import numpy as np
import papermill
import pandas as pd
import pytest
import torch
import yaml
from sklearn.metrics import roc_auc_score

from conftest import ROOT
from lmd.masking import Checkerboard
from lmd.random import Randomness
from lmd.scoring import write_table

NOTEBOOKS = sorted((ROOT / "nbs/paper").glob("*.ipynb"))
SETS = "mnist", "kmnist7k", "fashionmnist"
PAIRS = [["mnist", "kmnist7k"], ["kmnist7k", "mnist"], ["fashionmnist", "mnist"]]


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    "Scores of three models on three sets: LPIPS separates them, SSIM and MSE are noise"
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("scores")
    images, attempts = 30, 4
    pair = torch.arange(3), torch.zeros(3, dtype=torch.long)
    masks = np.stack([Checkerboard()(Randomness(0, pair[0], pair[1] + a), 32).numpy() > 0 for a in range(2)], 1)
    for model in SETS:
        for source in SETS:
            d = rng.random((images * attempts, 3)) + 1
            d[:, 0] += 2 * (model != source)
            frame = pd.DataFrame(d.astype(np.float32), columns=["lpips", "ssim", "mse"])
            frame.insert(0, "image", np.repeat(np.arange(images, dtype=np.int32), attempts))
            frame.insert(1, "attempt", np.tile(np.arange(attempts, dtype=np.int16), images))
            write_table(frame, folder / model / source / "default.parquet", method="lmd", source=source, split="test", n=images,
                        model=model, setting=dict(attempts=attempts), weights=model, data=source, nfe=8, seconds=1., machine={})
            pictures = rng.integers(0, 256, (2, 3, 2, 1, 32, 32), dtype=np.uint8)
            distances = {c: frame[c].to_numpy().reshape(images, attempts)[:3, :2] for c in ("lpips", "ssim", "mse")}
            np.savez(folder / model / source / "default.npz", image=np.arange(3), original=pictures[0, :, 0],
                     reconstruction=pictures[1], mask=masks, **distances)
    return folder


def execute(notebook, tmp_path, **parameters):
    "Run a notebook with those of the parameters that it has; the folder of its results"
    known = papermill.inspect_notebook(notebook)
    parameters = {k: v for k, v in parameters.items() if k in known}
    papermill.execute_notebook(notebook, tmp_path / "executed.ipynb", dict(parameters, reports=str(tmp_path / "reports")),
                               cwd=notebook.parent, kernel_name="python3", progress_bar=False)
    return tmp_path / "reports"


def check_table1(reports, scores):
    table = pd.read_csv(reports / "table1.csv").set_index(["in-domain", "out-of-domain"])
    metrics = json.loads((reports / "metrics/table1.json").read_text())
    for model, outside in PAIRS:
        medians = [pd.read_parquet(scores / model / s / "default.parquet").groupby("image")["mse"].median() for s in (model, outside)]
        expected = roc_auc_score(np.repeat([0, 1], 30), np.concatenate(medians))
        assert table.loc[(model, outside), "MSE"] == pytest.approx(expected, abs=1e-5)
        assert table.loc[(model, outside), "LPIPS"] == 1
        assert metrics[f"{model}_{outside}"]["mse"] == pytest.approx(expected, abs=1e-4)
    assert "| average" in (reports / "table1.md").read_text()


def check_figure7(reports, scores):
    table = pd.read_csv(reports / "figure7.csv")
    assert (table.query("distance == 'LPIPS'")[["mean", "low", "high"]] == 1).all(axis=None)
    complete = table.query("attempts == 4")                  # all attempts can be chosen in one way only
    assert np.allclose(complete["low"], complete["high"])


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_on_made_up_scores(notebook, scores, tmp_path):
    reports = execute(notebook, tmp_path, scores=str(scores), pairs=PAIRS, setting="default", draws=5)
    assert any(reports.iterdir())
    if check := globals().get(f"check_{notebook.stem}"): check(reports, scores)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_reports_are_those_of_the_committed_scores(notebook, tmp_path):
    parameters = yaml.safe_load((ROOT / "params.yaml").read_text())[notebook.stem]
    reports = execute(notebook, tmp_path, **parameters)
    for new in (p for p in reports.rglob("*") if p.is_file()):
        committed = ROOT / "reports" / new.relative_to(reports)
        assert committed.exists()
        if new.suffix in (".csv", ".md", ".json"): assert new.read_text() == committed.read_text()
