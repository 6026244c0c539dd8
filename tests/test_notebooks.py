"The paper's notebooks, with parameters given as papermill gives them: on made-up scores whose results are known, and on the committed ones."
import contextlib
import itertools
import json

import matplotlib.pyplot as plt
import numpy as np
import papermill
import pandas as pd
import pytest
import torch
import yaml
from diffusers import DDPMScheduler, UNet2DModel
from IPython.core.interactiveshell import InteractiveShell
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from PIL import Image
from sklearn.metrics import roc_auc_score
from traitlets.config import Config

from conftest import ROOT
from lmd.masking import Checkerboard, mask_from_name
from lmd.random import Randomness
from lmd.files import write_table

NOTEBOOKS = sorted((ROOT / "nbs/paper").glob("*.ipynb"))
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]       # a notebook without one has no scores yet
SETS = "mnist", "kmnist7k", "fashionmnist"
PAIRS = [["mnist", "kmnist7k"], ["kmnist7k", "mnist"], ["fashionmnist", "mnist"]]
VARIANTS = {"alternating-4": .1, "alternating-16": 1, "fixed-8": .5, "center": 0, "random-patch": .4, "denoise": .3}  # setting: how far LPIPS separates the sets

METHODS = {  # setting of a method: what the model's name has after the set's, images, attempts, network evaluations, columns and how far each separates the sets
    "complexity": ("", 25, 2, 49, dict(nll_bpd=-1, ic_png=2, ic_best=2, png_bpd=-2)), "regret": ("-vae", 20, 1, 0, dict(regret=2)), "features": ("", 30, 1, 0, dict(mahalanobis=.3, knn=.1)),
    "klip": ("", 25, 1, 80, dict(klip_max=2, klip_mean=.5))}

ERODED = {"identity": 0, "rectangle-16": .5, "rectangle-16-offset-4": .5, "rectangle-16-offset-8": .1, "downsample-4": 2}  # erosion: how far LPIPS separates the sets

FACES = ("faces-8", "alternating-checkerboard-8", .5), ("faces-4", "alternating-checkerboard-4", .1), ("faces-center", "center", 2)  # setting, mask, how far LPIPS separates the sets


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    "Scores of three models on three sets: LPIPS separates them, SSIM and MSE are noise"
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("scores")
    other = np.random.default_rng(1)
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
            if model != "fashionmnist":   # the paper's setting: fewer images, better by SSIM, worse by MSE
                few = frame.query("image < 20").assign(ssim=frame["ssim"] + 2 * (model != source), mse=frame["mse"] - 2 * (model != source))
                write_table(few, folder / model / source / "paper.parquet", method="lmd", source=source, split="test", n=20, model=model,
                            setting=dict(attempts=attempts, steps=80), weights=model, data=source, nfe=800, seconds=66.8, machine={})
            for setting, shift in VARIANTS.items():   # fewer images than the default
                own = frame.query("image < 20").assign(lpips=lambda f: (other.random(len(f)) + 1 + shift * (model != source)).astype(np.float32))
                write_table(own, folder / model / source / f"{setting}.parquet", method="lmd", source=source, split="test", n=20, model=model,
                            setting=dict(attempts=attempts, name=setting), weights=model, data=source, nfe=8, seconds=1., machine={})
            for setting, (suffix, n, repeats, nfe, columns) in METHODS.items():
                own = pd.DataFrame({c: (other.random(n * repeats) + 1 + shift * (model != source)).astype(np.float32) for c, shift in columns.items()})
                own.insert(0, "image", np.repeat(np.arange(n, dtype=np.int32), repeats))
                own.insert(1, "attempt", np.tile(np.arange(repeats, dtype=np.int16), n))
                write_table(own, folder / f"{model}{suffix}" / source / f"{setting}.parquet", method=setting, source=source, split="test", n=n,
                            model=f"{model}{suffix}", setting=dict(name=setting), weights=f"{model}{suffix}", data=source, nfe=nfe, seconds=n / 2, machine={})
            pictures = rng.integers(0, 256, (2, 3, 2, 1, 32, 32), dtype=np.uint8)
            distances = {c: frame[c].to_numpy().reshape(images, attempts)[:3, :2] for c in ("lpips", "ssim", "mse")}
            np.savez(folder / model / source / "default.npz", image=np.arange(3), original=pictures[0, :, 0],
                     reconstruction=pictures[1], mask=masks, **distances)
    faces = np.random.default_rng(2)
    originals = {source: faces.integers(0, 256, (3, 1, 64, 64), dtype=np.uint8) for source in ("faces64", "natural64")}
    for setting, mask, shift in FACES:        # one attempt, 64 x 64
        for source in ("faces64", "natural64"):
            d = faces.random((images, 3)) + 1 + np.array([shift * (source == "natural64"), 0, 0])
            frame = pd.DataFrame(d.astype(np.float32), columns=["lpips", "ssim", "mse"])
            frame.insert(0, "image", np.arange(images, dtype=np.int32))
            frame.insert(1, "attempt", np.zeros(images, np.int16))
            write_table(frame, folder / "faces64" / source / f"{setting}.parquet", method="lmd", source=source, split="test", n=images, model="faces64",
                        setting=dict(attempts=1, name=setting), weights="faces64", data=source, nfe=100, seconds=1., machine={})
            painted = faces.integers(0, 256, (3, 1, 1, 64, 64), dtype=np.uint8)
            np.savez(folder / "faces64" / source / f"{setting}.npz", image=np.arange(3), original=originals[source], reconstruction=painted,
                     mask=mask_from_name(mask)(Randomness(0, *pair), 64).numpy()[:, None] > 0, lpips=d[:3, :1])
    made = np.random.default_rng(3)           # validation images, outliers made from the first 20 of them, and maps
    for model, (kind, n) in itertools.product(SETS, {"": 200, "-flip": 20, "-blend": 20}.items()):
        own = pd.DataFrame({c: (made.random(n * attempts) + 1 + 2 * (c == "lpips" and kind != "")).astype(np.float32) for c in ("lpips", "ssim", "mse")})
        own.insert(0, "image", np.repeat(np.arange(n, dtype=np.int32), attempts))
        own.insert(1, "attempt", np.tile(np.arange(attempts, dtype=np.int16), n))
        write_table(own, folder / model / f"{model}-val{kind}" / f"{'outliers' if kind else 'default'}.parquet", weights=model, nfe=8)
    for model in SETS:
        pd.DataFrame([dict(model=model, defect=kind, map=name, n=4, low=low, high=1., **{"pixel ROC-AUC": .97, "region overlap": .8, "overlap low": .7, "overlap high": .9})
                      for kind, low in (("scar", .96), ("blot", .9)) for name in ("unexpectedness", "squared error")]).to_csv(folder / model / "localisation.csv", index=False)
        np.savez(folder / model / "localisation.npz", **{f"{kind} {what}": made.integers(0, 2, (4, *shape), dtype=np.uint8) for kind in ("scar", "blot")
                                                       for what, shape in (("image", (1, 32, 32)), ("where", (32, 32)), ("map", (32, 32)))})
    for model in SETS:                        # KLIP: its own choice is neither the best nor the worst
        choices = [dict(zip(("window low", "window high", "block", "chains", "ROC-AUC"), c)) for c in ((.04, 1.5, 4, 4, .8), (.04, 1.5, 1, 4, .7), (.02, .15, 4, 4, .9), (.02, .15, 1, 1, .6))]
        pd.DataFrame([dict(c, outside=o, what=what, model=model, n=20) for what, sets in (("image", [s for s in SETS if s != model]), ("pixel", ["scar", "blot"])) for o in sets for c in choices]
                     ).to_csv(folder / model / "klip-sensitivity.csv.gz", index=False)
        area_of = {"KLIP": .95, "LMD": .9, "KLIP - LMD": .05}
        pd.DataFrame([dict(defect=kind, score="pixel ROC-AUC", n=20, model=model, **{f"{k}{b}": v + d for k, v in area_of.items() for b, d in (("", 0), (" low", -.1 if kind == "blot" else -.01), (" high", .01))})
                      for kind in ("scar", "blot")]).to_csv(folder / model / "klip-maps.csv", index=False)
        np.savez(folder / model / "klip-maps.npz", **{f"{kind} {what}": made.integers(0, 2, (2, *shape), dtype=np.uint8) for kind in ("scar", "blot")
                                                    for what, shape in (("image", (1, 32, 32)), *((w, (32, 32)) for w in ("where", "KLIP", "LMD")))})
    (folder / "phantoms").mkdir()
    pd.DataFrame([{"views": v, "score": k, "n": 20, "ROC-AUC": .6, "low": .6 - v / 100, "high": .7} for v in (6, 12) for k in ("image, largest block", "pixel")]).to_csv(folder / "phantoms/ct.csv", index=False)
    np.savez(folder / "phantoms/ct.npz", **{f"{v} {what}": made.integers(0, 2, (2, *shape), dtype=np.uint8) for v in (6, 12)
                                           for what, shape in (("mean", (1, 32, 32)), *((w, (32, 32)) for w in ("image", "where", "map")))})
    (folder / "fashionmnist-student").mkdir()  # OAL: one seed after the other, all a tenth above none
    rows = [dict(variant=v, seed=k, score=score, network="vit" if v == "teacher" else "resnet18", **{"in-domain": "fashionmnist", "out-of-domain": o}, auc=.8 + better + k / 100, fpr95=.4 - better, accuracy=.9, seconds=1.)
            for v, better, seeds in (("teacher", .05, (0,)), ("none", 0, (1, 2, 3)), ("IDKD", .02, (1, 2, 3)), ("MICL without IDKD", -.1, (1, 2, 3)), ("energy loss", 0, (1, 2, 3)), ("all", .1, (1, 2, 3)))
            for k in seeds for score in ("energy", "knn") for o in ("mnist", "kmnist7k")]
    pd.DataFrame(rows).to_csv(folder / "fashionmnist-student/study.csv", index=False)
    pd.DataFrame([dict(r, network="resnet50", auc=r["auc"] - .1) for r in rows if r["variant"] in ("none", "all")]).to_csv(folder / "fashionmnist-student/study-resnet50.csv", index=False)
    pd.DataFrame(dict(part=["teacher", "all"], seconds=[10, 20])).to_csv(folder / "fashionmnist-student/study-cost.csv", index=False)
    np.savez(folder / "fashionmnist-student/study.npz", **{f"{v} {o}": made.normal(o == "mnist", 1, 50) for v in ("none", "all") for o in ("fashionmnist", "mnist")})
    for model in SETS:                        # SR-OOD: the more is taken away, the farther are the sets
        for source in (*SETS, f"{model}-val", f"{model}-val-flip", f"{model}-val-blend"):
            inside, n = source in (model, f"{model}-val"), 200 if "-val" in source else 30
            own = pd.DataFrame({f"{d}-{e}": (made.random(n) + 1 + (d == "lpips" and not inside) * shift).astype(np.float32) for d in ("lpips", "mse") for e, shift in ERODED.items()})
            own.insert(0, "image", np.arange(n, dtype=np.int32)); own.insert(1, "attempt", np.zeros(n, np.int16))
            write_table(own, folder / f"{model}-repair" / source / "repairing.parquet", method="repairing", source=source, split="test", n=n, model=f"{model}-repair",
                        setting=dict(name="repairing"), weights=f"{model}-repair", data=source, nfe=0, seconds=1., machine={})
            if "-val" not in source:
                pictures = {f"{e} {what}": made.integers(0, 256, (2, 1, 32, 32), dtype=np.uint8) for e in ERODED for what in ("eroded", "repaired")}
                np.savez(folder / f"{model}-repair" / source / "repairing.npz", original=made.integers(0, 256, (2, 1, 32, 32), dtype=np.uint8), **pictures)
    columns = dict(attempts=1, steps=1, sampler="ddim", eta=1., t0=.3, spacing="uniform", resample=1, n="30 + 30", reference="dear by lpips")
    frontier = pd.DataFrame([{"model": m, "in-domain": m, "out-of-domain": o, "setting": s, "nfe": nfe, **columns, "score": k, "auc": a, "low": a - .02, "high": a + .02,
                              "seconds": nfe / 100, "difference": a - .9, "difference_low": a - .92, "difference_high": a - .88, "fingerprint": f"{m}{o}{s}{k}"}
                             for m, o in [*PAIRS, *((f"{m} val", f"{m} val:flip") for m in SETS)] for k in ("lpips", "combined")
                             for s, nfe, a in (("cheap", 2, .7), ("dear", 100, .9), ("wasteful", 50, .8 if "val" in m else .6))])
    frontier["model"] = frontier["model"].str.removesuffix(" val")
    for (model, made_up), rows in frontier.groupby(["model", frontier["in-domain"].str.endswith(" val")]):
        rows.to_csv(folder / model / f"frontier{'-val' * made_up}.csv.gz", index=False)
    return folder


def execute(notebook, tmp_path, **parameters):
    "Run a notebook with those of the parameters that it has, in this process, where lmd is loaded already; the folder of its results"
    known, reports = papermill.inspect_notebook(notebook), tmp_path / "reports"
    given = {k: v for k, v in dict(parameters, reports=str(reports)).items() if k in known}
    with contextlib.chdir(notebook.parent), plt.rc_context():
        shell = InteractiveShell(config=Config(HistoryManager={"enabled": False}))
        for cell in parameterize_notebook(load_notebook_node(str(notebook)), given).cells:
            if cell.cell_type == "code": shell.run_cell(cell.source).raise_error()
        plt.close("all")
    return reports


def check_frontier(reports, scores):
    best = pd.read_csv(reports / "frontier-best.csv").set_index(["score", "budget"])
    assert best.loc["LPIPS", "setting"].tolist() == ["cheap"] * 5 + ["dear"]
    assert best.loc[("LPIPS", 100), "auc"] == pytest.approx(.9) and (best["pairs"] == len(PAIRS)).all()
    assert len(pd.read_csv(reports / "frontier.csv")) == 6 and (reports / "frontier.png").exists()
    assert json.loads((reports / "metrics/frontier.json").read_text())["combined at 2"]["nfe"] == 2
    findings = pd.read_csv(reports / "findings-frontier.csv")
    assert findings.groupby("claim")["verdict"].agg(set).to_dict() == {"difference >= 0": {"is refuted"}, "difference >= -0.05": {"holds"}} and len(findings) == 2*len(PAIRS)
    chosen = pd.read_csv(reports / "frontier-chosen.csv").set_index(["score", "budget"]).loc["LPIPS"]
    assert chosen["setting"].tolist() == ["cheap"] * 4 + ["wasteful", "dear"]
    assert chosen.loc[50, ["on validation images", "on test pairs", "best on test pairs"]].tolist() == pytest.approx([.8, .6, .7])


def check_adaptive(reports, scores):
    table = pd.read_csv(reports / "adaptive.csv")
    assert (table["same verdicts"] == "45 of 45").all()          # 15 in-domain, 30 out-of-domain
    assert (table["out-of-domain attempts"] == 3).all() and (table["out-of-domain flagged"] == 1).all()


def check_choice(reports, scores):
    every = pd.read_csv(reports / "choice-all.csv").set_index("candidate")
    assert every.loc["lpips, median", ["mnist flip", "kmnist7k blend", "mean"]].tolist() == [1, 1, 1]        # LPIPS alone tells outliers
    assert every["mean"].iloc[0] == 1 and .4 < every.loc["mse, median", "mean"] < .6 and every.loc["mse, median", "behind_low"] > .3
    assert {"lpips, median", "ssim, median", "mse, median"} <= set(pd.read_csv(reports / "choice.csv")["candidate"])


def check_detector(reports, scores):
    both = pd.read_csv(reports / "detector.csv").set_index(["in-domain", "out-of-domain"])
    table, fast = (both[both["setting"] == name] for name in ("default", "fast"))
    assert fast["note"].str.startswith("not scored yet").all() and len(fast) == len(PAIRS)
    for model, outside in PAIRS:
        logs = [np.log(pd.read_parquet(scores / model / s / "default.parquet").set_index("image")["ssim"]).groupby("image").median() for s in (model, outside)]
        line = table.loc[(model, outside)]
        assert line["ROC-AUC"] == pytest.approx(roc_auc_score(np.repeat([0, 1], 30), np.concatenate(logs)), abs=1e-5)
        assert line["LPIPS, median"] == line["by labels"] == line["at best"] == 1 and line["beside the paper"] == "below"
    assert table.loc[("average", "of 3 grayscale pairs"), "ROC-AUC"] == pytest.approx(table["ROC-AUC"].iloc[:3].mean())
    covered = pd.read_csv(reports / "detector-coverage.csv")
    assert len(covered) == len(SETS) and covered["mean rate"].between(.05, .13).all() and (covered["nominal"] == .1).all()


def check_localisation(reports, scores):
    findings = pd.read_csv(reports / "findings-localisation.csv").set_index("on")["verdict"]
    assert findings["mnist, scar"] == "holds" and findings["mnist, blot"] == "is undecided" and (reports / "localisation.png").exists()


def check_klip(reports, scores):
    table = pd.read_csv(reports / "klip.csv").set_index(["in-domain", "out-of-domain", "score"])
    for model, outside in PAIRS:
        assert table.loc[(model, outside, "KLIP, largest block"), "ROC-AUC"] == pytest.approx(area(scores, model, outside, "klip", "klip_max", few=25), abs=1e-5)
    ranges = pd.read_csv(reports / "klip-sensitivity.csv").set_index(["of", "against"])
    assert (ranges["best"] == .9).all() and (ranges["worst"] == .6).all()
    assert (ranges.loc["image", "published"] == .8).all() and (ranges.loc["pixel", "published"] == .7).all()
    findings = pd.read_csv(reports / "findings-klip.csv").set_index("on")["verdict"]
    assert findings["mnist, scar"] == "holds" and findings["mnist, blot"] == "is undecided" and (reports / "klip-maps.png").exists()
    assert findings["pixel, 6 views"] == "holds" and findings["pixel, 12 views"] == "is undecided" and (reports / "klip-ct.png").exists()


def check_repairing(reports, scores):
    table = pd.read_csv(reports / "repairing.csv").set_index(["in-domain", "out-of-domain", "repair"])
    for model, outside in PAIRS:
        expected = {e: area(scores, f"{model}-repair", outside, "repairing", f"lpips-{e}", few=30, inside=model) for e in ERODED}
        assert table.loc[(model, outside, "Rec"), "ROC-AUC"] == pytest.approx(expected["identity"], abs=1e-5)
        assert table.loc[(model, outside, "SR"), "difference"] == pytest.approx(expected["downsample-4"] - expected["rectangle-16"], abs=1e-5)
        assert table.loc[(model, outside, "chosen"), "ROC-AUC"] == table.loc[(model, outside, "SR"), "ROC-AUC"] == 1     # by the outliers made from validation images
    assert pd.read_csv(reports / "repairing-choice.csv").groupby("model")["candidate"].first().eq("lpips-downsample-4").all()
    distances = pd.read_csv(reports / "repairing-distances.csv").groupby("distance")["ROC-AUC"].mean()
    assert distances["LPIPS"] == 1 >= distances["MSE + 0.8 LPIPS"] > distances["MSE"]
    assert all((reports / f"repairing-{model}.png").exists() for model in SETS)
    verdicts = pd.read_csv(reports / "findings-repairing.csv").set_index("claim")["verdict"]
    assert set(verdicts["difference >= 0"]) == {"holds"} and len(verdicts) == 4 * len(PAIRS)


def check_outlier_aware(reports, scores):
    modules, differences = (pd.read_csv(reports / f"outlier_aware-{name}.csv").set_index("variant") for name in ("modules", "differences"))
    assert modules.loc["all", ["AUROC", "FPR95", "accuracy", "seeds"]].tolist() == pytest.approx([92, 30, 90, 3]) and modules.loc["none", "AUROC deviation"] == pytest.approx(1)
    assert differences.loc["all", ["AUROC", "AUROC low", "AUROC high"]].tolist() == pytest.approx([10] * 3) and "teacher" not in differences.index
    backbones = pd.read_csv(reports / "outlier_aware-backbones.csv").set_index(["network", "variant"])["AUROC"]
    assert backbones["resnet18", "all"] - backbones["resnet50", "all"] == pytest.approx(10) and (reports / "outlier_aware-energies.png").exists()
    assert pd.read_csv(reports / "findings-outlier_aware.csv")["verdict"].tolist() == ["holds"] * 4     # a loss of 0 is no gain


def check_relatives(reports, scores):
    every = pd.read_csv(reports / "relatives-all.csv").set_index(["in-domain", "out-of-domain", "method"])
    cost = pd.read_csv(reports / "relatives-cost.csv").set_index("method")
    assert set(cost.index) == {"LMD", "SR-OOD", "KLIP", "Likelihood", "Input complexity", "Likelihood regret", "Pretrained features"} and (cost["pairs"] == len(PAIRS)).all()
    areas = [area(scores, *pair, "klip", "klip_max", few=25) for pair in PAIRS]
    assert every.xs("KLIP", level="method")["ROC-AUC"].tolist() == pytest.approx(areas, abs=1e-5)
    assert cost.loc["KLIP", ["NFE", "seconds", "ROC-AUC, mean", "lowest"]].tolist() == pytest.approx([80, .5, np.mean(areas), min(areas)], abs=1e-5)
    assert (every.loc[PAIRS[0][0], PAIRS[0][1]]["ROC-AUC"] == 1).sum() == 5     # which share the ranks 1 to 5
    assert every.loc[(*PAIRS[0], "LMD"), "rank"] == 3 and (reports / "relatives.png").exists()


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
    every = pd.read_csv(reports / "table1-all.csv").set_index(["in-domain", "out-of-domain", "method"])
    readers = pd.read_csv(reports / "table1-methods.csv", dtype=str, keep_default_na=False).set_index(["in-domain", "out-of-domain"])
    differences = pd.read_csv(reports / "table1-differences.csv").set_index(["in-domain", "out-of-domain", "method"])
    names = {"Likelihood": ("complexity", "nll_bpd"), "Input complexity": ("complexity", "ic_png"), "Likelihood regret": ("regret", "regret"), "Pretrained features": ("features", "mahalanobis")}
    assert list(readers.columns) == ["LMD", *names, "note"]      # the methods without scores have no column
    def expected(model, outside, name, few=None):
        (setting, column), how = names.get(name, ("default", "lpips")), "mean" if name in names else "median"
        folder = f"{model}{METHODS[setting][0]}" if name in names else model
        values = [pd.read_parquet(scores / folder / s / f"{setting}.parquet").groupby("image")[column].agg(how).iloc[:few] for s in (model, outside)]
        return roc_auc_score(np.repeat([0, 1], len(values[0])), np.concatenate(values))
    for (model, outside), name in itertools.product(PAIRS, ["LMD", *names]):
        line = every.loc[(model, outside, name)]
        assert line["ROC-AUC"] == pytest.approx(expected(model, outside, name), abs=1e-5) and line["low"] <= line["ROC-AUC"] <= line["high"]
        assert readers.loc[(model, outside), name].startswith(f"{line['ROC-AUC']:.3f}")
        if name == "LMD": continue
        assert metrics[f"{model}_{outside}"][name] == pytest.approx(line["ROC-AUC"], abs=1e-4)
        n = METHODS[names[name][0]][1]                           # the common images are the first n
        assert (differences.loc[(model, outside, name), "n"], line["n"]) == (f"{n} + {n}",) * 2
        assert differences.loc[(model, outside, name), "difference"] == pytest.approx(expected(model, outside, name) - expected(model, outside, "LMD", n), abs=1e-5)
    assert every.loc[(*PAIRS[0], "Likelihood"), ["paper", "NFE", "seconds"]].tolist() == [.948, 49, .5]
    assert every.loc[(*PAIRS[0], "Likelihood"), "rank"] == 5 and np.isnan(every.loc[(*PAIRS[0], "Input complexity, best of all"), "rank"])
    assert readers.loc[("mean rank", "of 3 complete lines"), "Likelihood"] == "5.000"
    assert readers.loc[tuple(PAIRS[0]), "Likelihood"].endswith(" (0.948)")
    shares = pd.read_csv(reports / "table1-shares.csv").set_index(["in-domain", "out-of-domain"])
    for model, outside in PAIRS:                                 # the likelihood minus a share of PNG's size
        means = [pd.read_parquet(scores / model / s / "complexity.parquet").groupby("image")[["nll_bpd", "png_bpd"]].mean() for s in (model, outside)]
        for share in ("0", "0.5", "1"):
            expected_share = roc_auc_score(np.repeat([0, 1], 25), np.concatenate([m["nll_bpd"] - float(share) * m["png_bpd"] for m in means]))
            assert shares.loc[(model, outside), share] == pytest.approx(expected_share, abs=1e-5)
    assert shares.loc[("mean distance to the paper", "grayscale"), "1"] == pytest.approx((shares["1"] - shares["paper"]).abs().iloc[:3].mean(), abs=1e-5)
    deviations = pd.read_csv(reports / "table1-deviations.csv")
    assert (deviations["deviation"].abs() > .1).all() and (deviations["deviation"] - deviations["ROC-AUC"] + deviations["paper"]).abs().max() < 1e-5
    assert deviations.query("method == 'Input complexity'")["other scores"].str.match(r"best of all \d\.\d{3}$").all()
    findings = pd.read_csv(reports / "findings-table1.csv")
    assert findings["on"].tolist() == ["kmnist7k vs mnist", "fashionmnist vs mnist"] * 2 and set(findings["verdict"]) == {"holds"}


def check_fidelity(reports, scores):
    table, every = pd.read_csv(reports / "fidelity.csv", dtype=str, keep_default_na=False), pd.read_csv(reports / "fidelity-all.csv")
    assert table["n"].tolist() == ["20 + 20", "20 + 20", ""]
    assert table["NFE"].tolist() == ["8 / 800", "8 / 800", ""] and table["ratio of seconds"].tolist() == ["100", "100", ""]
    assert table["note"].str.startswith("not scored yet: fashionmnist, mnist with paper").tolist() == [False, False, True]
    assert not every["model"].eq("fashionmnist").any()
    for (_, r), setting in itertools.product(every.iterrows(), ("default", "paper")):
        files = [scores / r["model"] / s / f"{setting}.parquet" for s in (r["model"], r["out-of-domain"])]
        medians = [pd.read_parquet(f).query("image < 20").groupby("image")[r["distance"].lower()].median() for f in files]
        expected = roc_auc_score(np.repeat([0, 1], 20), np.concatenate(medians))
        assert r["cheap" if setting == "default" else "reference"] == pytest.approx(expected, abs=1e-5)
    # LPIPS is perfect twice, which 20 images do not show well enough; SSIM is worse, MSE better than with the paper's setting
    assert every.groupby("distance")["non_inferior"].agg(set).to_dict() == {"LPIPS": {False}, "MSE": {True}, "SSIM": {False}}
    others, plain = pd.read_csv(reports / "fidelity-others.csv"), every[every["distance"] == "LPIPS"]      # the default once more
    for theirs, ours in (("default", "cheap"), ("paper", "reference"), ("difference", "difference"), ("low", "low"), ("high", "high")): assert others[theirs].tolist() == plain[ours].tolist()
    combined = pd.read_csv(reports / "fidelity-combined.csv")     # SSIM of the default setting against LPIPS of the paper's, which is perfect
    assert combined["setting"].tolist() == ["default"] * 2 and (combined["paper"] == 1).all()
    areas = [area(scores, r["model"], r["out-of-domain"], "default", "ssim", lambda d: np.log(d).median()) for _, r in combined.iterrows()]
    assert combined["combined"].tolist() == pytest.approx(areas, abs=1e-5) and (combined["difference"] - combined["combined"] + 1).abs().max() < 1e-5


def area(scores, model, outside, setting, column="lpips", how="median", few=20, inside=None):
    "scikit-learn's ROC-AUC of the first images; 20 are those that all made-up settings have"
    frames = [pd.read_parquet(scores / model / s / f"{setting}.parquet") for s in (inside or model, outside)]
    frames = [f[f["image"] < few] for f in frames]
    return roc_auc_score(np.repeat([0, 1], few), np.concatenate([f.groupby("image")[column].agg(how) for f in frames]))


def check_variants(reports, scores, name, kind, settings, reference):
    "Lines, differences and metrics of a table of variants"
    table = pd.read_csv(reports / f"{name}.csv").set_index(["in-domain", "out-of-domain", kind])
    metrics = json.loads((reports / f"metrics/{name}.json").read_text())
    assert len(table) == len(PAIRS) * len(settings) and set(table["n"]) == {"20 + 20"}
    for (model, outside), (variant, setting) in itertools.product(PAIRS, settings.items()):
        expected, line = area(scores, model, outside, setting), table.loc[(model, outside, variant)]
        assert line["ROC-AUC"] == pytest.approx(expected, abs=1e-5) and line["low"] <= line["ROC-AUC"] <= line["high"]
        assert metrics[f"{model}_{outside}"][variant] == pytest.approx(expected, abs=1e-4)
        if variant == reference: assert np.isnan(line["difference"])
        else: assert line["difference"] == pytest.approx(expected - area(scores, model, outside, settings[reference]), abs=1e-5)
    return table


def check_table2(reports, scores):
    masks = {"alternating 4x4": "alternating-4", "alternating 8x8": "default", "alternating 16x16": "alternating-16",
             "fixed 8x8": "fixed-8", "center": "center", "random patch": "random-patch"}
    table = check_variants(reports, scores, "table2", "mask", masks, "alternating 8x8")
    assert table.loc[("mnist", "kmnist7k", "center"), "paper"] == .479 and table["paper"].notna().sum() == 6
    findings = pd.read_csv(reports / "findings-table2.csv")
    assert findings["verdict"].isin(["holds", "is refuted", "is undecided"]).all()
    failing = findings[findings["claim"] == "difference <= -0.05"]   # of MNIST vs KMNIST: both separate nothing here
    assert failing[["on", "verdict"]].values.tolist() == [["mnist vs kmnist7k", "holds"]] * 2
    assert len(findings) == 2 * len(PAIRS) + 2


def check_table3(reports, scores):
    distances = pd.read_csv(reports / "table3.csv").set_index(["in-domain", "out-of-domain", "distance"])
    aggregations = pd.read_csv(reports / "table3-aggregations.csv").set_index(["in-domain", "out-of-domain", "aggregation"])
    for model, outside in PAIRS:
        frames = [pd.read_parquet(scores / model / s / "default.parquet") for s in (model, outside)]
        for column in ("lpips", "ssim", "mse"):
            expected = roc_auc_score(np.repeat([0, 1], 30), np.concatenate([f.groupby("image")[column].median() for f in frames]))
            assert distances.loc[(model, outside, {"lpips": "LPIPS", "ssim": "SSIM", "mse": "MSE"}[column]), "ROC-AUC"] == pytest.approx(expected, abs=1e-5)
        assert distances.loc[(model, outside, "AlexNet"), ["ROC-AUC", "note"]].tolist()[1] == "no alexnet in the scores"
    assert (aggregations["ROC-AUC"] == 1).all() and (aggregations["difference"].dropna() == 0).all()   # LPIPS is perfect in every way
    assert aggregations["difference"].isna().sum() == len(PAIRS)
    assert set(pd.read_csv(reports / "findings-table3.csv")["verdict"]) == {"is undecided"}


def check_table4(reports, scores):
    table = check_variants(reports, scores, "table4", "mapping", {"denoising": "denoise", "inpainting": "default"}, "inpainting")
    assert table.loc[("fashionmnist", "mnist", "denoising"), "paper"] == .941
    findings = pd.read_csv(reports / "findings-table4.csv")
    differences = [table.loc[(*pair, "denoising"), "difference high"] for pair in PAIRS]
    assert findings["high"].tolist() == pytest.approx(differences)
    assert findings["verdict"].tolist() == ["holds" if high <= 0 else "is undecided" for high in differences]


def check_figure1(reports, scores):
    scores, metrics = pd.read_csv(reports / "figure1.csv").set_index("points"), json.loads((reports / "metrics/figure1.json").read_text())["curve"]
    assert scores.loc["in-domain", "50 % below"] < scores.loc["out-of-domain", "5 % below"]
    assert .95 < metrics["auc_low"] < metrics["auc"] <= 1


def check_figure6(reports, scores):
    table = pd.read_csv(reports / "figure6.csv").set_index("mask")
    frames = [[pd.read_parquet(scores / "faces64" / s / f"{setting}.parquet")["lpips"] for s in ("faces64", "natural64")] for setting, *_ in FACES]
    expected = [roc_auc_score(np.repeat([0, 1], 30), np.concatenate(f)) for f in frames]
    assert table["ROC-AUC"].tolist() == pytest.approx(expected, abs=1e-5)
    assert table["difference"].tolist()[1:] == pytest.approx(np.array(expected[1:]) - expected[0], abs=1e-5)
    assert table["paper"].tolist() == [.991, .994, 1]
    assert pd.read_csv(reports / "figure6-findings.csv")["verdict"].tolist() == ["is refuted", "holds"]
    assert json.loads((reports / "metrics/figure6.json").read_text())["center"]["auc"] == 1
    assert not (reports / "figure6-own.csv").exists()


def test_figure6_with_a_model_and_pictures_of_ones_own(scores, tmp_path):
    "A network that paints everything gray: gray pictures come back as they were, black and white ones do not"
    torch.manual_seed(0)
    unet = UNet2DModel(sample_size=32, in_channels=3, out_channels=3, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
                       down_block_types=["DownBlock2D"] * 2, up_block_types=["UpBlock2D"] * 2)
    for p in unet.conv_out.parameters(): torch.nn.init.normal_(p, std=.01)
    unet.save_pretrained(tmp_path / "model/unet")
    DDPMScheduler(prediction_type="sample").save_pretrained(tmp_path / "model/scheduler")
    for folder, levels in dict(inside=(120, 128, 136), outside=(0, 8, 250)).items():
        (tmp_path / folder).mkdir()
        for level in levels: Image.new("RGB", (48, 40), (level,) * 3).save(tmp_path / folder / f"{level}.png")
    folders = {k: str(tmp_path / k) for k in ("model", "inside", "outside")}
    reports = execute(ROOT / "nbs/paper/figure6.ipynb", tmp_path, scores=str(scores), column="mse", steps=2, images=2, **folders)
    table = pd.read_csv(reports / "figure6-own.csv")
    assert table["mask"].tolist() == ["checkerboard 8x8", "checkerboard 4x4", "center"]
    assert (table["ROC-AUC"] == 1).all() and (table["n"] == "3 + 3").all() and (table["NFE"] == 2).all()
    assert (reports / "figure6-own.png").exists()


def check_figure7(reports, scores):
    table = pd.read_csv(reports / "figure7.csv")
    assert (table.query("distance == 'LPIPS'")[["mean", "low", "high"]] == 1).all(axis=None)
    complete = table.query("attempts == 4")                  # all attempts can be chosen in one way only
    assert np.allclose(complete["low"], complete["high"])
    findings = pd.read_csv(reports / "findings-figure7.csv").set_index(["finding", "on"])
    assert len(findings) == 2 * 3 * len(PAIRS)               # two claims by three distances
    model, outside = PAIRS[0]                                # from one attempt to all four, by MSE
    frames = [pd.read_parquet(scores / model / s / "default.parquet") for s in (model, outside)]
    one = np.mean([roc_auc_score(np.repeat([0, 1], 30), np.concatenate([f.loc[f["attempt"] == a, "mse"] for f in frames])) for a in range(4)])
    every = roc_auc_score(np.repeat([0, 1], 30), np.concatenate([f.groupby("image")["mse"].median() for f in frames]))
    assert findings.loc[("4 attempts are at least as good as one", f"{model} vs {outside} by MSE"), "estimate"] == pytest.approx(every - one, abs=1e-5)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_on_made_up_scores(notebook, scores, tmp_path):
    reports = execute(notebook, tmp_path, scores=str(scores), pairs=PAIRS, setting="default", draws=5, train_steps=1500, steps=100, points=300, cells=10, fpr=.1,
                      models=list(SETS), kinds=["flip", "blend"], others=["default"], claims=[["cheap", "lpips", 0.], ["dear", "combined", -.05]], combination="ssim, median", rates=[.1], splits=50, detector="", ct=str(scores / "phantoms/ct.csv"))
    assert any(reports.iterdir())
    if check := globals().get(f"check_{notebook.stem}"): check(reports, scores)


@pytest.mark.parametrize("notebook", [n for n in NOTEBOOKS if n.stem in STAGES], ids=lambda p: p.stem)
def test_reports_are_those_of_the_committed_scores(notebook, tmp_path):
    parameters = yaml.safe_load((ROOT / "params.yaml").read_text()).get(notebook.stem, {})
    reports = execute(notebook, tmp_path, **parameters)
    for new in (p for p in reports.rglob("*") if p.is_file()):
        committed = ROOT / "reports" / new.relative_to(reports)
        assert committed.exists()
        if notebook.stem == "figure1":                       # it trains a network: another processor rounds otherwise
            if new.suffix == ".csv": pd.testing.assert_frame_equal(pd.read_csv(new), pd.read_csv(committed), atol=.01)
        elif new.suffix in (".csv", ".md", ".json"): assert new.read_text() == committed.read_text()
