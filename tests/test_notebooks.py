"""The paper's notebooks, with parameters given as papermill gives them: on made-up scores whose results are
known, and on the committed ones."""
import contextlib
import itertools
import json
import re
import shutil
from unittest.mock import patch

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import papermill
import pandas as pd
import pytest
import sklearn
import torch
from diffusers import DDPMScheduler, UNet2DModel
from IPython.core.interactiveshell import InteractiveShell
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from PIL import Image
from sklearn.metrics import roc_auc_score
from traitlets.config import Config

from conftest import ROOT
from lmd.files import write_npz, write_table
from lmd.study.figures import masks_of
from lmd.study.pages import page_parameters

NOTEBOOKS = sorted((ROOT / "nbs/paper").glob("*.ipynb"))
SETS = "mnist", "kmnist7k", "fashionmnist"
PAIRS = [["mnist", "kmnist7k"], ["kmnist7k", "mnist"], ["fashionmnist", "mnist"]]
IMAGES, ATTEMPTS = 30, 4

# setting: how far LPIPS separates the sets
VARIANTS = {"alternating-checkerboard-4": .1, "alternating-checkerboard-16": 1, "fixed-checkerboard-8": .5,
            "center": 0, "random-patch-8": .4, "denoise": .3}
LONG = {"long": 2, "long-4": 2, "long-center": 0, "long-denoise": 0}    # of the first model

# setting of a method: what the model's name has after the set's, images, attempts, network evaluations,
# and how far each column separates the sets
METHODS = {
    "complexity": ("", 25, 2, 49, dict(nll_bpd=-1, ic_png=2, ic_best=2, png_bpd=-2)),
    "regret": ("-vae", 20, 1, 0, dict(regret=2)),
    "features": ("", 30, 1, 0, dict(mahalanobis=.3, knn=.1)),
    "klip": ("", 25, 1, 80, dict(klip_max=2, klip_mean=.5))}

# erosion: how far LPIPS separates the sets
ERODED = {"identity": 0, "rectangle-16": .5, "rectangle-16-offset-4": .5, "rectangle-16-offset-8": .1,
          "downsample-4": 2}

# setting: mask, how far LPIPS separates the sets
FACES = {"faces-8": ("alternating-checkerboard-8", .5), "faces-4": ("alternating-checkerboard-4", .1),
         "faces-center": ("center", 2)}


# ---- made-up scores

def write(folder, model, setting, source, columns, attempts=ATTEMPTS, **about):
    "A score file; the columns have a value for each image and attempt"
    frame = pd.DataFrame({c: np.asarray(v, np.float32) for c, v in columns.items()})
    n = len(frame) // attempts
    frame.insert(0, "image", np.repeat(np.arange(n, dtype=np.int32), attempts))
    frame.insert(1, "attempt", np.tile(np.arange(attempts, dtype=np.int16), n))
    known = dict(method="lmd", source=source, split="test", n=n, model=model, weights=model, data=source,
                 nfe=8, setting=dict(name=setting, attempts=attempts), seconds=1., machine={})
    write_table(frame, folder / model / setting / f"{source}.parquet", **known | about)


def noise(rng, n, shift=0.): return rng.random(n) + 1 + shift


def make_settings(folder, rng):
    """LMD in several settings: by default LPIPS separates the sets, SSIM and MSE are noise; with the paper's
    setting SSIM is better and MSE worse, and there are fewer images; other settings have LPIPS alone"""
    other, few = np.random.default_rng(1), 20 * ATTEMPTS
    for model, source in itertools.product(SETS, SETS):
        apart, d = 2 * (model != source), noise(rng, (IMAGES * ATTEMPTS, 3))
        columns = {"lpips": d[:, 0] + apart, "ssim": d[:, 1], "mse": d[:, 2]}
        write(folder, model, "default", source, columns)
        if model != "fashionmnist":
            paper = columns | {"ssim": columns["ssim"] + apart, "mse": columns["mse"] - apart}
            paper = {c: v[:few] for c, v in paper.items()}
            write(folder, model, "paper", source, paper, nfe=800, seconds=66.8)
        for setting, shift in (VARIANTS | (LONG if model == "mnist" else {})).items():
            write(folder, model, setting, source, {"lpips": noise(other, few, shift * (model != source))})
        make_methods(folder, model, source, other)


def make_methods(folder, model, source, rng):
    "Likelihood, input complexity, likelihood regret, features and KLIP"
    for setting, (suffix, n, attempts, nfe, columns) in METHODS.items():
        own = {c: noise(rng, n * attempts, shift * (model != source)) for c, shift in columns.items()}
        about = dict(method=setting, nfe=nfe, seconds=n / 2)
        write(folder, f"{model}{suffix}", setting, source, own, attempts, **about)


def make_recipes(folder):
    "Three trainings by each of three recipes, on test images and on outliers that are made"
    source = {True: f"{PAIRS[1][0]}-val-flip", False: PAIRS[1][1]}
    rows = [dict(recipe=recipe, seed=k, steps=9, detector=detector, NFE=100, images=8, made=made,
                 **{"out-of-domain": source[made], "ROC-AUC": .9 + .01 * k + gain - .2 * made})
            for recipe, gain in (("own", 0), ("better", .02), ("worse", -.02)) for k in range(3)
            for detector in ("LPIPS", "panel") for made in (False, True)]
    save(folder / PAIRS[1][0] / "recipes", pd.DataFrame(rows))


def make_early(folder, rng):
    "A network that went on, and became worse"
    model, outside = PAIRS[0]
    for source in (model, outside):
        d = noise(rng, IMAGES * ATTEMPTS, .2 * (model != source))
        write(folder, f"{model}-early", "default", source, {"lpips": d})


def make_cosine(folder, rng):
    "Of few images LPIPS and, better, features of another network; the last model was not scored"
    for model, source in itertools.product(SETS[:2], SETS):
        d = noise(rng, (20 * ATTEMPTS, 2)) + (model != source) * np.array([.1, 2])
        write(folder, model, "cosine", source, dict(zip(("lpips", "efficientnet"), d.T)))


def make_faces(folder, rng):
    "One attempt on faces and other pictures"
    for (setting, (_, shift)), source in itertools.product(FACES.items(), ("faces64", "natural64")):
        d = noise(rng, (IMAGES, 3))
        d[:, 0] += shift * (source == "natural64")
        write(folder, "faces64", setting, source, dict(zip(("lpips", "ssim", "mse"), d.T)), 1, nfe=100)


def make_validation(folder, rng):
    "Validation images, and outliers made from the first 20 of them, which LPIPS tells from in-domain images"
    for model, (kind, n) in itertools.product(SETS, {"": 200, "-flip": 20, "-blend": 20}.items()):
        shifts = {"lpips": 2 * (kind != ""), "ssim": 0, "mse": 0}
        columns = {c: noise(rng, n * ATTEMPTS, shift) for c, shift in shifts.items()}
        write(folder, model, "outliers" if kind else "default", f"{model}-val{kind}", columns)


def make_repairs(folder, rng):
    "SR-OOD: the more is taken away, the farther apart are the sets"
    for model in SETS:
        for source in (*SETS, f"{model}-val", f"{model}-val-flip", f"{model}-val-blend"):
            outside, n = source not in (model, f"{model}-val"), 200 if "-val" in source else IMAGES
            columns = {f"{d}-{e}": noise(rng, n, (d == "lpips" and outside) * shift)
                       for d in ("lpips", "mse") for e, shift in ERODED.items()}
            write(folder, f"{model}-repair", "repairing", source, columns, 1, method="repairing", nfe=0)


def make_maps(folder, rng):
    "Maps of pasted defects, KLIP's maps and choices, and tomographies"
    def pictures(n, *names): return {k: rng.integers(0, 256, (n, 1, 32, 32), dtype=np.uint8) for k in names}
    def maps(n, *names): return {k: rng.integers(0, 2, (n, 32, 32), dtype=np.uint8) for k in names}
    def examples(n, kinds, picture, *whats):
        names = (f"{k} {what}" for k in kinds for what in whats)
        return pictures(n, *(f"{k} {picture}" for k in kinds)) | maps(n, *names)
    for model in SETS:
        place, kinds = folder / model, ("scar", "blot")
        save(place / "localisation", found_defects(model), **examples(4, kinds, "image", "where", "map"))
        save(place / "klip-maps", compared_maps(model), **examples(2, kinds, "image", "where", "KLIP", "LMD"))
        save(place / "klip-sensitivity", choices(model), "table.csv.gz")
    lines = [{"views": v, "score": k, "n": 20, "ROC-AUC": .6, "low": .6 - v / 100, "high": .7}
             for v in (6, 12) for k in ("image, largest block", "pixel")]
    save(folder / "phantoms/tomography", pd.DataFrame(lines),
         **examples(2, (6, 12), "mean", "image", "where", "map"))


def found_defects(model):
    "Scars are found surely enough, blots are not"
    areas = {"pixel ROC-AUC": .97, "region overlap": .8, "overlap low": .7, "overlap high": .9}
    return pd.DataFrame([dict(model=model, defect=kind, map=name, n=4, low=low, high=1.) | areas
                         for kind, low in (("scar", .96), ("blot", .9))
                         for name in ("unexpectedness", "squared error")])


def save(folder, table, name="table.csv", **arrays):
    "The table of a study and its examples"
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / name, index=False)
    if arrays: write_npz(folder / "examples.npz", **arrays)


def compared_maps(model):
    "KLIP's maps are better than LMD's at scars; at blots the interval of the difference reaches below zero"
    lines = []
    for kind, below in (("scar", .01), ("blot", .1)):
        line = dict(defect=kind, score="pixel ROC-AUC", n=20, model=model)
        for name, value in {"KLIP": .95, "LMD": .9, "KLIP - LMD": .05}.items():
            line |= {name: value, f"{name} low": value - below, f"{name} high": value + .01}
        lines.append(line)
    return pd.DataFrame(lines)


def choices(model):
    "KLIP's own choice is neither the best nor the worst"
    columns = "window low", "window high", "block", "chains", "ROC-AUC"
    made = (.04, 1.5, 4, 4, .8), (.04, 1.5, 1, 4, .7), (.02, .15, 4, 4, .9), (.02, .15, 1, 1, .6)
    against = {"image": [s for s in SETS if s != model], "pixel": ["scar", "blot"]}
    return pd.DataFrame([dict(zip(columns, choice), outside=outside, what=what, model=model, n=20)
                         for what, sets in against.items() for outside in sets for choice in made])


def make_students(folder, rng):
    "OAL on two sets; CIFAR10's teacher is worse than the students"
    make_study(folder, rng, "fashionmnist", ("mnist", "kmnist7k"), .95)
    make_study(folder, rng, "cifar10", ("cifar100", "svhn1k", "tinyimagenet32"), .7)


def make_study(folder, rng, inside, sets, accuracy):
    "One seed after the other, all a tenth above none"
    better = {"teacher": .05, "none": 0, "IDKD": .02, "MICL without IDKD": -.1, "energy loss": 0, "all": .1}
    rows, scores = [], ("energy", "knn")
    for (variant, gain), score, outside in itertools.product(better.items(), scores, sets):
        network, seeds = ("vit", (0,)) if variant == "teacher" else ("resnet18", (1, 2, 3))
        line = {"in-domain": inside, "out-of-domain": outside, "score": score, "network": network}
        line |= dict(variant=variant, fpr95=.4 - gain, accuracy=.9, seconds=1.)
        line |= {"val accuracy": accuracy if variant == "teacher" else .9, "val auc": .8 + gain}
        rows += [line | dict(seed=k, auc=.8 + gain + k / 100) for k in seeds]
    place = folder / f"{inside}-student"
    save(place / "study", pd.DataFrame(rows))
    larger = [dict(r, network="resnet50", auc=r["auc"] - .1) for r in rows if r["variant"] in ("none", "all")]
    save(place / "study-resnet50", pd.DataFrame(larger))
    save(place / "study", pd.DataFrame(dict(part=["teacher", "all"], seconds=[10, 20])), "cost.csv")
    pairs = itertools.product(("none", "all"), (inside, *sets))
    energies = {f"{variant} {source}": rng.normal(source in sets, 1, 50) for variant, source in pairs}
    write_npz(place / "study/energies.npz", **energies)
    levels = {name: rng.integers(0, 256, (3, 1, 8, 8), dtype=np.uint8) for name in ("typical", "imagined")}
    write_npz(place / "study/imagined.npz", **levels, latents=rng.random((3, 2, 2)))


def make_plane(folder, rng):
    "Points, where they are mapped to, and scores which tell both kinds apart"
    points, inside = rng.uniform(-.7, .7, (2, 8, 2, 1, 1)).astype(np.float32), rng.random(50)
    plane = dict(points=points, mapped=points[:, :, None].repeat(2, 2), field=rng.random((5, 5)))
    write_npz(folder / "points/plane/plane.npz", **plane, scores=np.stack([inside, inside + .95]))


def make_frontier(folder):
    "Three settings: a cheap one, a dear one, and one that is good on validation images alone"
    known = dict(attempts=1, steps=1, sampler="ddim", eta=1., t0=.3, spacing="uniform", resample=1,
                 n="30 + 30", reference="dear by lpips")
    pairs = {(m, "frontier"): [(i, o) for i, o in PAIRS if i == m] for m in SETS}
    pairs |= {(m, "frontier-val"): [(f"{m} val", f"{m} val:flip")] for m in SETS}
    for (model, study), sets in pairs.items():
        areas = {"cheap": (2, .7), "dear": (100, .9), "wasteful": (50, .8 if study == "frontier-val" else .6)}
        rows, names = [], ("lpips", "combined")
        for (inside, outside), score, (name, (nfe, a)) in itertools.product(sets, names, areas.items()):
            line = {"in-domain": inside, "out-of-domain": outside, "setting": name, "nfe": nfe, **known}
            line |= dict(model=model, score=score, auc=a, low=a - .02, high=a + .02, seconds=nfe / 100)
            line |= dict(difference=a - .9, difference_low=a - .92, difference_high=a - .88)
            rows.append(line | {"fingerprint": f"{inside}{outside}{name}{score}"})
        save(folder / model / study, pd.DataFrame(rows), "table.csv.gz")


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    "Scores of three models on three sets, of every method, and the tables of every study"
    folder = tmp_path_factory.mktemp("scores")
    make_settings(folder, np.random.default_rng(0))
    makers = (make_faces, make_validation, make_repairs, make_maps, make_students, make_plane, make_early,
              make_cosine)
    for seed, make in enumerate(makers, 2): make(folder, np.random.default_rng(seed))
    make_frontier(folder)
    make_recipes(folder)
    measured = ROOT / "scores/mnist"
    for study in ("benchmark", "million"): shutil.copytree(measured / study, folder / "mnist" / study)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory, scores):
    "Reconstructions, beside the distances of the scores; repaired images"
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(9)
    def random(*shape): return rng.integers(0, 256, shape, dtype=np.uint8)
    def masks(name, size, r): return np.stack([masks_of(name, i, size, r).numpy() > 0 for i in range(3)])
    for model, source in itertools.product(SETS, SETS):
        frame = pd.read_parquet(scores / model / f"default/{source}.parquet")
        values = {c: frame[c].to_numpy().reshape(IMAGES, ATTEMPTS) for c in ("lpips", "ssim", "mse")}
        values = {c: d[:3, :2] for c, d in values.items()} | {"image": np.arange(3)}
        values |= dict(original=random(3, 1, 32, 32), reconstruction=random(3, 2, 1, 32, 32))
        file = folder / model / f"default/{source}.npz"
        write_npz(file, mask=masks("alternating-checkerboard-8", 32, 2), **values)
        repairs = {f"{e} {what}": random(2, 1, 32, 32) for e in ERODED for what in ("eroded", "repaired")}
        file = folder / f"{model}-repair/repairing/{source}.npz"
        write_npz(file, original=random(2, 1, 32, 32), **repairs)
    for source in ("faces64", "natural64"):
        original = random(3, 1, 64, 64)
        for setting, (mask, _) in FACES.items():
            write_npz(folder / f"faces64/{setting}/{source}.npz", image=np.arange(3), original=original,
                      mask=masks(mask, 64, 1), reconstruction=random(3, 1, 1, 64, 64))
    return folder


def execute(notebook, out, **parameters):
    "Run a notebook with those of the parameters that it has, in this process, where lmd is loaded already"
    known = papermill.inspect_notebook(notebook)
    given = {k: v for k, v in dict(parameters, out=str(out)).items() if k in known}
    coarse = patch("lmd.plots.save_picture", lambda figure, file: figure.savefig(file, format="png", dpi=50))
    unchecked = sklearn.config_context(skip_parameter_validation=True, assume_finite=True)
    with contextlib.chdir(notebook.parent), plt.rc_context(), coarse, unchecked:      # both save time
        shell = InteractiveShell(config=Config(HistoryManager={"enabled": False}))
        for cell in parameterize_notebook(load_notebook_node(str(notebook)), given).cells:
            if cell.cell_type == "code": shell.run_cell(cell.source).raise_error()
        plt.close("all")


def area(scores, model, outside, setting, column="lpips", how="median", few=20, inside=None):
    "scikit-learn's ROC-AUC of the first images; 20 are those that all made-up settings have"
    frames = [pd.read_parquet(scores / model / setting / f"{s}.parquet") for s in (inside or model, outside)]
    values = [f[f["image"] < few].groupby("image")[column].agg(how) for f in frames]
    return roc_auc_score(np.repeat([0, 1], [len(v) for v in values]), np.concatenate(values))


def log_median(d): return np.log(d).median()


def table(out, name, *index):
    "A table of the page"
    read = pd.read_csv(out / f"{name}.csv")
    return read.set_index(list(index)) if index else read


def metrics(out): return json.loads((out / "metrics.json").read_text())


# ---- what each page must find

def check_frontier(out, scores):
    best = table(out, "best", "score", "budget")
    assert best.loc["LPIPS", "setting"].tolist() == ["cheap"] * 5 + ["dear"]
    assert best.loc[("LPIPS", 100), "auc"] == pytest.approx(.9) and (best["pairs"] == len(PAIRS)).all()
    assert len(table(out, "frontier")) == 6 and (out / "frontier.png").exists()
    assert metrics(out)["combined at 2"]["nfe"] == 2
    findings = table(out, "findings")
    verdicts = {"difference >= 0": {"is refuted"}, "difference >= -0.05": {"holds"}}
    assert findings.groupby("claim")["verdict"].agg(set).to_dict() == verdicts
    assert len(findings) == 2 * len(PAIRS)
    chosen = table(out, "chosen", "score", "budget").loc["LPIPS"]
    assert chosen["setting"].tolist() == ["cheap"] * 4 + ["wasteful", "dear"]
    columns = ["on validation images", "on test pairs", "best on test pairs"]
    assert chosen.loc[50, columns].tolist() == pytest.approx([.8, .6, .7])


def check_adaptive(out, scores):
    lines = table(out, "adaptive")
    assert (lines["same verdicts"] == "45 of 45").all()          # 15 in-domain, 30 out-of-domain
    assert (lines["out-of-domain attempts"] == 3).all() and (lines["out-of-domain flagged"] == 1).all()


def check_choice(out, scores):
    every = table(out, "all", "candidate")
    columns = ["mnist flip", "kmnist7k blend", "mean"]
    assert every.loc["lpips, median", columns].tolist() == [1, 1, 1]        # LPIPS alone tells outliers
    assert every["mean"].iloc[0] == 1 and .4 < every.loc["mse, median", "mean"] < .6
    assert every.loc["mse, median", "behind_low"] > .3
    assert {"lpips, median", "ssim, median", "mse, median"} <= set(table(out, "choice")["candidate"])


def check_detector(out, scores):
    both = table(out, "detector", "in-domain", "out-of-domain")
    lines, fast = (both[both["setting"] == name] for name in ("default", "fast"))
    assert fast["note"].str.startswith("not scored yet").all() and len(fast) == len(PAIRS)
    for model, outside in PAIRS:
        expected = area(scores, model, outside, "default", "ssim", log_median, IMAGES)
        line = lines.loc[(model, outside)]
        assert line["ROC-AUC"] == pytest.approx(expected, abs=1e-5)
        assert line["LPIPS, median"] == line["by labels"] == line["at best"] == 1
        assert line["beside the best"] == "below"
    mean = pytest.approx(lines["ROC-AUC"].iloc[:3].mean())
    assert lines.loc[("average", "of 3 grayscale pairs"), "ROC-AUC"] == mean
    assert lines.loc[("average", "of 3 pairs"), "ROC-AUC"] == mean
    covered = table(out, "coverage")
    assert len(covered) == len(SETS) and covered["mean rate"].between(.05, .13).all()
    assert (covered["nominal"] == .1).all()
    for name, mean in (("recipes", .91), ("recipes-validation", .71)):
        trained = table(out, name, "detector", "recipe").loc["panel"]
        assert trained["verdict"].fillna("").tolist() == ["", "wins", "loses"]
        assert trained["ROC-AUC"].tolist() == pytest.approx([mean, mean + .02, mean - .02])
    assert (out / "recipes-kmnist7k-panel.png").exists()
    model, outside = PAIRS[0]
    went_on = table(out, "early", "network").loc["went on"]
    expected = area(scores, f"{model}-early", outside, "default", few=IMAGES, inside=model)
    assert went_on["ROC-AUC"] == pytest.approx(expected, abs=1e-5)
    assert went_on["difference"] == pytest.approx(expected - 1, abs=1e-5)
    assert table(out, "early-findings")["verdict"].tolist() == ["is refuted"]


def check_localisation(out, scores):
    findings = table(out, "findings", "on")["verdict"]
    assert findings["mnist, scar"] == "holds" and findings["mnist, blot"] == "is undecided"
    assert (out / "localisation.png").exists()


def check_klip(out, scores):
    lines = table(out, "klip", "in-domain", "out-of-domain", "score")
    for model, outside in PAIRS:
        expected = area(scores, model, outside, "klip", "klip_max", few=25)
        of = lines.loc[(model, outside)]["ROC-AUC"]
        assert of["KLIP, own window"] == pytest.approx(expected, abs=1e-5)
    ranges = table(out, "sensitivity", "of", "against")
    assert (ranges["best"] == .9).all() and (ranges["worst"] == .6).all()
    assert (ranges.loc["image", "setting"] == .8).all() and (ranges.loc["pixel", "setting"] == .7).all()
    findings = table(out, "findings", "on")["verdict"]
    assert findings["mnist, scar"] == "holds" and findings["mnist, blot"] == "is undecided"
    assert findings["pixel, 6 views"] == "holds" and findings["pixel, 12 views"] == "is undecided"
    assert (out / "maps.png").exists() and (out / "ct.png").exists()


def check_repairing(out, scores):
    lines = table(out, "repairing", "in-domain", "out-of-domain", "repair")
    for model, outside in PAIRS:
        expected = {e: area(scores, f"{model}-repair", outside, "repairing", f"lpips-{e}", few=IMAGES,
                            inside=model) for e in ERODED}
        of = lines.loc[(model, outside)]
        assert of.at["Rec", "ROC-AUC"] == pytest.approx(expected["identity"], abs=1e-5)
        difference = expected["downsample-4"] - expected["rectangle-16"]
        assert of.at["SR", "difference"] == pytest.approx(difference, abs=1e-5)
        assert of.at["chosen", "ROC-AUC"] == of.at["SR", "ROC-AUC"] == 1     # chosen on validation images
    assert table(out, "choice").groupby("model")["candidate"].first().eq("lpips-downsample-4").all()
    distances = table(out, "distances").groupby("distance")["ROC-AUC"].mean()
    assert distances["LPIPS"] == 1 >= distances["L2 + 0.8 LPIPS"] > distances["MSE"]
    assert all((out / f"{model}.png").exists() for model in SETS)
    verdicts = table(out, "findings", "claim")["verdict"]
    assert set(verdicts["difference >= 0"]) == {"holds"} and len(verdicts) == 4 * len(PAIRS)


def check_outlier_aware(out, scores):
    modules, differences = (table(out, name, "in-domain", "variant").loc["fashionmnist"]
                            for name in ("modules", "differences"))
    columns = ["AUROC", "FPR95", "accuracy", "seeds"]
    assert modules.loc["all", columns].tolist() == pytest.approx([92, 30, 90, 3])
    assert modules.loc["none", "AUROC deviation"] == pytest.approx(1)
    assert differences.loc["all", ["AUROC", "AUROC low", "AUROC high"]].tolist() == pytest.approx([10] * 3)
    assert "teacher" not in differences.index
    backbones = table(out, "backbones", "in-domain", "network", "variant")["AUROC"].loc["fashionmnist"]
    assert backbones["resnet18", "all"] - backbones["resnet50", "all"] == pytest.approx(10)
    assert (out / "energies-fashionmnist.png").exists() and (out / "energies-cifar10.png").exists()
    verdicts = table(out, "findings").groupby("on", sort=False)["verdict"].agg(list)
    assert verdicts["fashionmnist"] == ["holds"] * 5     # a loss of 0 is no gain
    unknown = "is not testable here"                     # of what the teacher gives
    assert verdicts["cifar10"] == [unknown, unknown, unknown, "holds", unknown]


def check_relatives(out, scores):
    every, cost = table(out, "all", "in-domain", "out-of-domain", "method"), table(out, "cost", "method")
    names = {"LMD", "LMD, calibrated", "SR-OOD", "KLIP", "Likelihood", "Input complexity",
             "Likelihood regret", "Pretrained features"}
    assert set(cost.index) == names and (cost["pairs"] == len(PAIRS)).all()
    areas = [area(scores, *pair, "klip", "klip_max", few=25) for pair in PAIRS]
    assert every.xs("KLIP", level="method")["ROC-AUC"].tolist() == pytest.approx(areas, abs=1e-5)
    expected = [80, .5, np.mean(areas), min(areas)]
    columns = ["NFE", "seconds", "ROC-AUC, mean", "lowest"]
    assert cost.loc["KLIP", columns].tolist() == pytest.approx(expected, abs=1e-5)
    expected = [area(scores, *pair, "default", "ssim", log_median, IMAGES) for pair in PAIRS]
    calibrated = every.xs("LMD, calibrated", level="method")["ROC-AUC"]
    assert calibrated.tolist() == pytest.approx(expected, abs=1e-5)
    assert (every.loc[PAIRS[0][0], PAIRS[0][1]]["ROC-AUC"] == 1).sum() == 5
    # four of them share the ranks 1 to 4: likelihood regret is far from trained and has none
    assert every.loc[(*PAIRS[0], "LMD"), "rank"] == 2.5 and (out / "relatives.png").exists()


NAMES = {"Likelihood": ("complexity", "nll_bpd"), "Input complexity": ("complexity", "ic_png"),
         "Likelihood regret": ("regret", "regret"), "Pretrained features": ("features", "mahalanobis")}


def area_of_method(scores, model, outside, name, few=IMAGES):
    if name not in NAMES: return area(scores, model, outside, "default", few=few)
    setting, column = NAMES[name]
    return area(scores, f"{model}{METHODS[setting][0]}", outside, setting, column, "mean", few, model)


def check_table1(out, scores):
    lines, found = table(out, "table1", "in-domain", "out-of-domain"), metrics(out)
    for model, outside in PAIRS:
        expected = area(scores, model, outside, "default", "mse", few=IMAGES)
        assert lines.loc[(model, outside), "MSE"] == pytest.approx(expected, abs=1e-5)
        assert lines.loc[(model, outside), "LPIPS"] == 1
        assert found[f"{model}_{outside}"]["mse"] == pytest.approx(expected, abs=1e-4)
    assert lines.index[-1] == ("average", "of 3 complete lines")
    check_methods(out, scores)
    check_shares(out, scores)
    again = table(out, "seeds", "detector").loc["LPIPS"]
    assert again[["trainings", "mean", "smallest", "largest", "spread"]].tolist() == \
        pytest.approx([3, .91, .9, .92, .02], abs=1e-6)
    far = table(out, "deviations")
    assert (far["deviation"].abs() > .1).all()
    assert (far["deviation"] - far["ROC-AUC"] + far["paper"]).abs().max() < 1e-5
    others = far.query("method == 'Input complexity'")["other scores"]
    assert others.str.match(r"best of all \d\.\d{3}$").all()
    findings = table(out, "findings")
    assert findings["on"].tolist() == ["kmnist7k vs mnist", "fashionmnist vs mnist"] * 2
    assert findings["verdict"].tolist() == ["holds"] * 4


def check_methods(out, scores):
    pair = ["in-domain", "out-of-domain"]
    every, differences = (table(out, name, *pair, "method") for name in ("all", "differences"))
    readers = pd.read_csv(out / "methods.csv", dtype=str, keep_default_na=False).set_index(pair)
    assert list(readers.columns) == ["LMD", *NAMES]      # the methods without scores have no column
    for (model, outside), name in itertools.product(PAIRS, ["LMD", *NAMES]):
        line, expected = every.loc[(model, outside, name)], area_of_method(scores, model, outside, name)
        assert line["ROC-AUC"] == pytest.approx(expected, abs=1e-5)
        assert line["low"] <= line["ROC-AUC"] <= line["high"]
        assert readers.loc[(model, outside), name].startswith(f"{line['ROC-AUC']:.3f}")
        if name == "LMD": continue
        assert metrics(out)[f"{model}_{outside}"][name] == pytest.approx(line["ROC-AUC"], abs=1e-4)
        n, difference = METHODS[NAMES[name][0]][1], differences.loc[(model, outside, name)]
        assert (difference["n"], line["n"]) == (f"{n} + {n}",) * 2      # the common images are the first n
        lead = expected - area_of_method(scores, model, outside, "LMD", n)
        assert difference["difference"] == pytest.approx(lead, abs=1e-5)
    assert every.loc[(*PAIRS[0], "Likelihood"), ["paper", "NFE", "seconds"]].tolist() == [.948, 49, .5]
    assert every.loc[(*PAIRS[0], "Likelihood"), "rank"] == 4         # likelihood regret has none
    assert np.isnan(every.loc[(*PAIRS[0], "Input complexity, best of all"), "rank"])
    assert readers.loc[("mean rank", "of 3 complete lines"), "Likelihood"] == "4.000"
    assert readers.loc[tuple(PAIRS[0]), "Likelihood"].endswith(" (0.948)")


def check_shares(out, scores):
    "The likelihood minus a share of PNG's size"
    shares = table(out, "shares", "in-domain", "out-of-domain")
    for model, outside in PAIRS:
        files = [scores / model / f"complexity/{s}.parquet" for s in (model, outside)]
        means = [pd.read_parquet(f).groupby("image")[["nll_bpd", "png_bpd"]].mean() for f in files]
        for share in ("0", "0.5", "1"):
            values = np.concatenate([m["nll_bpd"] - float(share) * m["png_bpd"] for m in means])
            expected = roc_auc_score(np.repeat([0, 1], 25), values)
            assert shares.loc[(model, outside), share] == pytest.approx(expected, abs=1e-5)
    far = (shares["1"] - shares["paper"]).abs().iloc[:3].mean()
    assert shares.loc[("mean distance to the paper", "grayscale"), "1"] == pytest.approx(far, abs=1e-5)


def check_fidelity(out, scores):
    lines, every = pd.read_csv(out / "fidelity.csv", dtype=str, keep_default_na=False), table(out, "all")
    assert lines["n"].tolist() == ["20 + 20", "20 + 20", ""]
    assert lines["NFE"].tolist() == ["8 / 800", "8 / 800", ""]
    assert lines["ratio of seconds"].tolist() == ["100", "100", ""]
    missing = lines["note"].str.startswith("not scored yet: fashionmnist, mnist with paper")
    assert missing.tolist() == [False, False, True]
    assert not every["model"].eq("fashionmnist").any()
    names = ("default", "cheap"), ("paper", "reference")
    for (_, r), (setting, name) in itertools.product(every.iterrows(), names):
        expected = area(scores, r["model"], r["out-of-domain"], setting, r["distance"].lower())
        assert r[name] == pytest.approx(expected, abs=1e-5)
    # LPIPS is perfect twice, which 20 images show within their margin; SSIM is worse and MSE better than
    # with the paper's setting
    assert (every["non_inferior"] == (every["low"] > -every["margin"])).all()
    claimed = every.groupby("distance")["non_inferior"].all().to_dict()
    assert claimed == {"LPIPS": True, "MSE": True, "SSIM": False}
    others, plain = table(out, "others"), every[every["distance"] == "LPIPS"]      # the default once more
    same = {"default": "cheap", "paper": "reference"} | {k: k for k in ("difference", "low", "high")}
    for theirs, ours in same.items(): assert others[theirs].tolist() == plain[ours].tolist()
    combined = table(out, "combined")     # SSIM by default against LPIPS with the paper's, which is perfect
    assert combined["setting"].tolist() == ["default"] * 2 and (combined["paper"] == 1).all()
    areas = [area(scores, r["model"], r["out-of-domain"], "default", "ssim", log_median)
             for _, r in combined.iterrows()]
    assert combined["combined"].tolist() == pytest.approx(areas, abs=1e-5)
    assert (combined["difference"] - combined["combined"] + 1).abs().max() < 1e-5


def check_variants(out, scores, kind, settings, reference):
    "Lines, differences and metrics of a table of variants"
    lines, found = table(out, out.name, "in-domain", "out-of-domain", kind), metrics(out)
    assert len(lines) == len(PAIRS) * len(settings) and set(lines["n"]) == {"20 + 20"}
    for (model, outside), (variant, setting) in itertools.product(PAIRS, settings.items()):
        expected, line = area(scores, model, outside, setting), lines.loc[(model, outside, variant)]
        assert line["ROC-AUC"] == pytest.approx(expected, abs=1e-5)
        assert line["low"] <= line["ROC-AUC"] <= line["high"]
        assert found[f"{model}_{outside}"][variant] == pytest.approx(expected, abs=1e-4)
        if variant == reference: assert np.isnan(line["difference"])
        else:
            lead = expected - area(scores, model, outside, settings[reference])
            assert line["difference"] == pytest.approx(lead, abs=1e-5)
    return lines


def check_table2(out, scores):
    masks = {"alternating 4x4": "alternating-checkerboard-4", "alternating 8x8": "default",
             "fixed 8x8": "fixed-checkerboard-8", "alternating 16x16": "alternating-checkerboard-16",
             "center": "center", "random patch": "random-patch-8"}
    lines = check_variants(out, scores, "mask", masks, "alternating 8x8")
    assert lines.loc[("mnist", "kmnist7k", "center"), "paper"] == .479 and lines["paper"].notna().sum() == 6
    findings = table(out, "findings")
    assert findings["verdict"].isin(["holds", "is refuted", "is undecided"]).all()
    failing = findings[findings["claim"] == "difference <= -0.05"]   # both masks separate nothing here
    assert failing[["on", "verdict"]].values.tolist() == [["mnist vs kmnist7k", "holds"]] * 2
    assert len(findings) == 2 * len(PAIRS) + 2
    longer = table(out, "long-findings")["verdict"].tolist()         # the center mask finds nothing
    assert longer == ["holds", "is undecided"]


def check_table3(out, scores):
    distances = table(out, "table3", "in-domain", "out-of-domain", "distance")
    aggregations = table(out, "aggregations", "in-domain", "out-of-domain", "aggregation")
    for (model, outside), name in itertools.product(PAIRS, ("LPIPS", "SSIM", "MSE")):
        expected = area(scores, model, outside, "default", name.lower(), few=IMAGES)
        assert distances.loc[(model, outside, name), "ROC-AUC"] == pytest.approx(expected, abs=1e-5)
    assert (distances.xs("AlexNet", level="distance")["note"] == "no alexnet in the scores").all()
    check_stand_in(out, scores, distances.xs("EfficientNet-Lite0, cosine", level="distance"))
    assert (aggregations["ROC-AUC"] == 1).all()                      # LPIPS is perfect in every way
    assert (aggregations["difference"].dropna() == 0).all()
    assert aggregations["difference"].isna().sum() == len(PAIRS)
    assert set(table(out, "findings")["verdict"]) == {"is undecided"}


def check_stand_in(out, scores, lines):
    "Another network in the place of SimCLRv2, of fewer images, beside LPIPS of the same ones"
    fair = table(out, "features", "in-domain", "out-of-domain")
    assert fair.index.tolist() == [tuple(pair) for pair in PAIRS[:2]]
    assert fair["paper SimCLRv2"].tolist() == [.983, .92] and lines["paper"].isna().all()
    for pair in map(tuple, PAIRS[:2]):
        lpips, line = area(scores, *pair, "cosine"), fair.loc[pair]
        assert [line["LPIPS"], line["difference"]] == pytest.approx([lpips, 1 - lpips], abs=1e-5)
        assert line["n"] == lines.loc[pair, "n"] == "20 + 20" and lines.loc[pair, "ROC-AUC"] == 1
        assert lines.loc[pair, "difference"] == line["difference"]
    assert lines["note"].fillna("").tolist() == ["", "", "not scored yet: fashionmnist, mnist"]
    assert table(out, "features-findings")["verdict"].tolist() == ["is refuted"] * 2
    assert metrics(out)["mnist_kmnist7k"]["EfficientNet-Lite0, cosine"] == 1


def check_table4(out, scores):
    settings = {"denoising": "denoise", "inpainting": "default"}
    lines, findings = check_variants(out, scores, "mapping", settings, "inpainting"), table(out, "findings")
    assert lines.loc[("fashionmnist", "mnist", "denoising"), "paper"] == .941
    differences = [lines.loc[(*pair, "denoising"), "difference high"] for pair in PAIRS]
    assert findings["high"].tolist() == pytest.approx(differences)
    assert findings["verdict"].tolist() == ["holds" if high <= 0 else "is undecided" for high in differences]
    assert set(table(out, "long-findings")["verdict"]) == {"holds"}


def check_figure1(out, scores):
    lines, found = table(out, "figure1", "points"), metrics(out)["curve"]
    assert lines.loc["in-domain", "50 % below"] < lines.loc["out-of-domain", "5 % below"]
    assert .95 < found["auc_low"] < found["auc"] <= 1


def check_figure6(out, scores):
    lines = table(out, "figure6", "mask")
    expected = [area(scores, "faces64", "natural64", setting, few=IMAGES) for setting in FACES]
    assert lines["ROC-AUC"].tolist() == pytest.approx(expected, abs=1e-5)
    assert lines["difference"].tolist()[1:] == pytest.approx(np.array(expected[1:]) - expected[0], abs=1e-5)
    assert lines["paper"].tolist() == [.991, .994, 1]
    assert table(out, "findings")["verdict"].tolist() == ["is refuted", "holds"]
    assert metrics(out)["center"]["auc"] == 1
    assert not (out / "own.csv").exists()


def check_figure7(out, scores):
    lines = table(out, "figure7")
    assert (lines.query("distance == 'LPIPS'")[["mean", "low", "high"]] == 1).all(axis=None)
    complete = lines.query("attempts == 4")                  # all attempts can be chosen in one way only
    assert np.allclose(complete["low"], complete["high"])
    findings = table(out, "findings", "finding", "on")
    assert len(findings) == 2 * 3 * len(PAIRS)               # two claims by three distances
    model, outside = PAIRS[0]                                # from one attempt to all four, by MSE
    one = [area(scores, model, outside, "default", "mse", lambda d, a=a: d.iloc[a], IMAGES)
           for a in range(ATTEMPTS)]
    gain = area(scores, model, outside, "default", "mse", few=IMAGES) - np.mean(one)
    line = findings.loc[("4 attempts are at least as good as one", f"{model} vs {outside} by MSE")]
    assert line["estimate"] == pytest.approx(gain, abs=1e-5)


# parameters that fit the made-up scores; a notebook takes those that it has
MADE_UP = dict(
    pairs=PAIRS, setting="default", draws=5, steps=100, fpr=.1,
    models=list(SETS), kinds=["flip", "blend"], others=["default"], rates=[.1], splits=50,
    claims=[["cheap", "lpips", 0.], ["dear", "combined", -.05]], combination="ssim, median")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_on_made_up_scores(notebook, scores, images, tmp_path):
    out, given = tmp_path / notebook.stem, page_parameters(notebook.stem, ROOT / "params.yaml")
    execute(notebook, out, **given | MADE_UP, scores=str(scores), images=str(images))
    assert any(out.iterdir())
    if check := globals().get(f"check_{notebook.stem}"): check(out, scores)


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_reports_are_those_of_the_committed_scores(notebook, tmp_path):
    out, committed = tmp_path / notebook.stem, ROOT / "reports" / notebook.stem
    execute(notebook, out, **page_parameters(notebook.stem, ROOT / "params.yaml"))
    expected = {p.name for p in committed.iterdir()} - {f"{notebook.stem}.ipynb"}
    assert {p.name for p in out.iterdir()} == expected
    for new in out.iterdir():
        if new.suffix in (".csv", ".json"): assert new.read_text() == (committed / new.name).read_text()


def test_every_table_and_figure_of_a_page_is_shown():
    shows = re.compile(r"\b(show_table|show_findings|save_figure)\(")
    for page in ROOT.glob("reports/*/*.ipynb"):
        for cell in nbformat.read(page, 4).cells:
            if cell.cell_type == "code" and shows.search(cell.source):
                assert cell.outputs, f"{page.stem}: {cell.id} shows nothing"


def test_figure6_with_a_model_and_pictures_of_ones_own(scores, images, tmp_path):
    "A network that paints everything gray: gray pictures come back as they were, black and white ones do not"
    torch.manual_seed(0)
    blocks = dict(down_block_types=["DownBlock2D"] * 2, up_block_types=["UpBlock2D"] * 2, norm_num_groups=4,
                  block_out_channels=(8, 8), layers_per_block=1)
    unet = UNet2DModel(sample_size=32, in_channels=3, out_channels=3, **blocks)
    for p in unet.conv_out.parameters(): torch.nn.init.normal_(p, std=.01)
    unet.save_pretrained(tmp_path / "model/unet")
    DDPMScheduler(prediction_type="sample").save_pretrained(tmp_path / "model/scheduler")
    for folder, levels in dict(inside=(120, 128, 136), outside=(0, 8, 250)).items():
        (tmp_path / folder).mkdir()
        for level in levels: Image.new("RGB", (48, 40), (level,) * 3).save(tmp_path / folder / f"{level}.png")
    given, out = {k: str(tmp_path / k) for k in ("model", "inside", "outside")}, tmp_path / "figure6"
    given |= dict(scores=str(scores), images=str(images), column="mse", steps=2, shown=2)
    execute(ROOT / "nbs/paper/figure6.ipynb", out, **given)
    lines = table(out, "own")
    assert lines["mask"].tolist() == ["checkerboard 8x8", "checkerboard 4x4", "center"]
    assert (lines["ROC-AUC"] == 1).all() and (lines["n"] == "3 + 3").all() and (lines["NFE"] == 2).all()
    assert (out / "own.png").exists()
