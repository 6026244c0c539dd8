"The commands from end to end on a small model: what they print and write."
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import click
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image
from sklearn.metrics import roc_auc_score

from conftest import QUICKLY, largest_relative_difference, message, train
from lmd import cli
from lmd.calibration import open_calibrated
from lmd.cli import main
from lmd.combination import load_plain, measurements, save_plain
from lmd.data import load, registry, to_model
from lmd.files import read_metadata, write_table
from lmd.settings import load_params, methods

REPAIRING = "--setting", "repairing", "--device", "cpu"


def commands(command=main, path=()):
    yield path, command
    if not isinstance(command, click.Group): return
    context = click.Context(command)
    for name in command.list_commands(context):
        yield from commands(command.get_command(context, name), (*path, name))


@pytest.mark.parametrize("path,command", list(commands()),
                         ids=lambda v: " ".join(v) or "lmd" if isinstance(v, tuple) else "")
def test_help(lmd, path, command):
    assert lmd(*path, "--help").output.startswith("Usage:")
    assert command.help
    assert all(p.help for p in command.params if isinstance(p, click.Option))


def test_help_imports_no_library():
    "Help comes at once"
    program = ("import sys; from lmd.cli import main; main(['--help'], standalone_mode=False); "
               "assert not {'torch', 'numpy', 'pandas', 'PIL'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


@pytest.mark.parametrize("folder", [".", str(Path(cli.__file__).parent)])
def test_the_package_is_a_command(folder):
    "From any folder, that of its own modules included, where `random` is not Python's"
    version = [sys.executable, "-m", "lmd", "--version"]
    done = subprocess.run(version, capture_output=True, text=True, check=True, cwd=folder)
    assert done.stdout.startswith("python -m lmd, version ")


def test_a_folder_that_is_gone(tmp_path):
    program = ("import os; os.chdir('gone'); os.rmdir('../gone'); from lmd.cli import main; "
               "main(['score', './x', '--model', 'm', '--setting', 's', '--out', 'o'])")
    (tmp_path / "gone").mkdir()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1


def test_a_terminal_without_letters():
    "A name that a Latin-1 terminal cannot show is escaped, on both streams"
    program = "from lmd.cli import main; import click\n" \
              "def say(): click.echo('雨'); raise ValueError('雨.parquet')\n" \
              "main.add_command(click.command('say')(say)); main(['say'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True,
                          env=os.environ | {"PYTHONIOENCODING": "latin-1:strict"})
    assert done.returncode == 1 and done.stderr == b"Error: \\u96e8.parquet\n", done
    assert done.stdout == b"\\u96e8\n", done


# ---- what may be written

@pytest.mark.parametrize("target", ["link", "dangling", "pipe", "/dev/null", "file/below", "", "folder/"])
@pytest.mark.parametrize("command", [
    ("score", "./pictures", "--model", "m", "--setting", "quick", "--out"),
    ("train", "digits", "--config", "tiny", "--out"),
    ("reconstruct", "digits", "--model", "m", "--setting", "quick", "--out"),
    ("detect", "digits", "--model", "m", "--calibration", "c", "--maps"),
    ("detect", "digits", "--model", "m", "--calibration", "c", "--report"),
    ("score", "digits", "--model", "m", "--setting", "quick", "--out", "x.parquet", "--work"),
    ("study", "localise", "digits", "--model", "m", "--setting", "quick", "--out")], ids=lambda c: c[-1])
def test_nothing_else_is_written_to(lmd, tmp_path, monkeypatch, command, target):
    "Said before any work: neither the model nor the calibration is looked for"
    monkeypatch.chdir(tmp_path)
    for name in ("real", "folder"): Path(name).mkdir()
    Path("file").write_text("mine")
    Path("link").symlink_to("real"), Path("dangling").symlink_to("nowhere")
    os.mkfifo("pipe")
    if target == "folder/" and command[-1] != "--report": return               # a folder may be named so
    before = sorted(Path(".").rglob("*"))
    got = CliRunner().invoke(main, [*command, target], catch_exceptions=False)
    assert got.exit_code == 1 and got.stderr.startswith("Error: ") and got.stderr.count("\n") == 1
    assert "m" != got.stderr and "no checkpoint" not in got.stderr
    assert sorted(Path(".").rglob("*")) == before and Path("file").read_text() == "mine"
    assert Path("/dev/null").is_char_device()


def test_a_folder_of_the_user_is_kept(lmd, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    for kind in ((), ("--kind", "vae", "--config", "digits-vae")):
        got = lmd("train", "digits", "--config", "tiny", *kind, "--out", tmp_path / "mine", code=1)
        assert str(tmp_path / "mine") in message(got)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["letter.txt"]
    assert not Path("runs/mine").exists()


@pytest.mark.parametrize("name,command", {
    "mine.csv": ("score", "digits", "--out"),
    "mine.npz": ("reconstruct", "digits", "--out"),
    "mine.html": ("detect", "./pictures", "--report")}.items())
def test_a_file_of_the_user_is_kept(lmd, model, calibrated, tmp_path, name, command):
    "A second run replaces what the first has written, and nothing else"
    options = {"detect": calibrated}.get(command[0], ("--model", model, *QUICKLY))
    run = command[0], command[1], *options, command[-1]
    for _ in range(2): lmd(*run, tmp_path / f"new{Path(name).suffix}")
    for text in ("a diary", "image,mse,label\n1,2,cat\n", "<html></html>", ""):
        (tmp_path / name).write_text(text)
        assert "is a file that lmd did not write" in message(lmd(*run, tmp_path / name, code=1))
        assert (tmp_path / name).read_text() == text


def test_a_score_file_is_kept(lmd, model):
    score = "score", "letters", "--model", model, *QUICKLY, "--out", "kept.parquet", "--set"
    for n in (20, 30): lmd(*score, f"n={n}")
    before = Path("kept.parquet").read_bytes()
    assert "has 30 images of this run, not 20" in message(lmd(*score, "n=20", code=1))
    assert Path("kept.parquet").read_bytes() == before


# ---- settings

def test_settings_are_listed_and_shown(lmd):
    listed = lmd("settings", "list").stdout
    assert "settings:" in listed and "train:" in listed
    assert all(f"  {name} " in listed for name in ("default", "quick", "tiny", "gray-64"))
    shown = yaml.safe_load(lmd("settings", "show", "settings", "quick", "--set", "attempts=7").stdout)
    entry = shown["settings"]["quick"]
    assert entry["method"] == "lmd" and (entry["steps"], entry["attempts"], entry["eta"]) == (2, 7, 1.)
    shown = yaml.safe_load(lmd("settings", "show", "train", "tiny").stdout)
    assert shown["train"]["tiny"]["kind"] == "denoiser" and shown["train"]["tiny"]["width"] == [16, 16]


def test_what_is_shown_can_be_used(lmd, tmp_path):
    "An entry in full is a parameter file that gives the same entry"
    shown = lmd("settings", "show", "train", "digits-vae").stdout
    (tmp_path / "p.yaml").write_text(shown)
    assert lmd("settings", "show", "train", "digits-vae", "--params", tmp_path / "p.yaml").stdout == shown


@pytest.mark.parametrize("change", ["steps=none", "stepz=2", "steps", "=2", "steps=[1", "distances=5",
                                    "steps=0", "distances=[psnr]", "n=1.5"])
def test_a_bad_change_is_refused(lmd, model, change):
    got = lmd("score", "digits", "--model", model, *QUICKLY, "--set", change, "--out", "no.parquet", code=1)
    assert message(got) and not Path("no.parquet").exists()


def test_a_field_is_changed_for_one_run(lmd, model):
    lmd("score", "letters", "--model", model, *QUICKLY, "--set", "steps=3", "--set", "distances=[mse]",
        "--set", "n=5", "--out", "changed.parquet")
    about = read_metadata("changed.parquet")["setting"]
    assert (about["steps"], about["distances"], about["n"]) == (3, ["mse"], 5)


@pytest.mark.parametrize("device", ["bogus", "meta", "cuda", "cuda:99", ""])
def test_a_device_must_be_there(lmd, device):
    if device == "cuda" and torch.cuda.is_available(): pytest.skip("there is a GPU")
    got = lmd("score", "digits", "--model", "x", "--setting", "x", "--out", "x", "--device", device, code=1)
    assert message(got).startswith(f"Error: there is no device {device!r} on this machine; there is cpu")


# ---- data and training

def test_every_set_is_listed(lmd):
    listed = {line.split()[0]: line for line in lmd("data", "list").stdout.splitlines()}
    assert listed.keys() == registry.keys()
    assert "fetched" in listed["digits"] and "fetched" not in listed["mnist"]


def test_fetching_names_each_set_that_fails(lmd):
    got = lmd("data", "fetch", "digitz", "digits", "--root", "elsewhere", code=1)
    assert "digitz: " in got.stderr and got.stdout == "elsewhere/digits\n"


def test_weights_are_found_or_said_how_to_get(lmd):
    with patch("lmd.weights.find_weights", return_value="here"):
        assert {"alexnet here", "vgg16 here"} <= {" ".join(line.split()) for line in
                                                  lmd("weights").stdout.splitlines()}
    with patch("lmd.weights.find_weights", side_effect=FileNotFoundError("three ways")):
        assert message(lmd("weights", code=1)) == "Error: three ways"
    with patch("lmd.weights.fetch_weights", side_effect=lambda name: f"/{name}"):
        assert lmd("weights", "fetch").stdout == "/alexnet\n"
        assert lmd("weights", "fetch", "vgg16", "simclrv2").stdout == "/vgg16\n/simclrv2\n"
    assert "nothing" in message(lmd("weights", "fetch", "nothing", code=1))


def test_a_checkpoint_has_its_files(place, model):
    files = {p.name for p in (place / model).iterdir()}
    assert files == {"README.md", "lmd.json", "loss.png", "samples.png", "unet"}


@pytest.mark.parametrize("name,file", {
    "digits-vae": "vae.safetensors",
    "digits-repair": "repairer.safetensors",
    "digits-teacher": "classifier.safetensors"}.items())
def test_other_kinds_are_trained_by_the_same_command(place, name, file):
    assert (place / train(place, name, name) / file).exists()


def test_a_kind_is_of_the_entry(lmd):
    train = "train", "digits", "--out", "checkpoints/refused", "--device", "cpu", "--config"
    assert "vae" in message(lmd(*train, "tiny", "--kind", "vae", code=1))
    assert "digits-latent" in message(lmd(*train, "digits-latent", code=1))       # `lmd study` trains these
    assert not Path("checkpoints/refused").exists()


# ---- scores

def test_scores(scored):
    for file, n in zip(scored, (197, 396)):
        frame, about = pd.read_parquet(file), read_metadata(file)
        types = {c: str(t) for c, t in frame.dtypes.items()}
        assert types == dict(image="int32", attempt="int16", ssim="float32", mse="float32")
        assert frame["image"].tolist() == [i for i in range(n) for _ in range(2)]
        assert frame["attempt"].tolist() == [0, 1] * n
        assert np.isfinite(frame).all(axis=None) and (frame["mse"] > 0).all()
        assert (about["source"], about["nfe"], about["setting"]["steps"]) == (Path(file).stem, 4, 2)
    assert not list(Path("runs").glob("*/*.parquet"))


def test_outliers_are_a_source(lmd, scored, model):
    score = "score", "--model", model, *QUICKLY, "--out", "outliers"
    assert "outliers/digits-val-shuffle.parquet: 200 images" in lmd(*score, "digits:val:shuffle").stdout
    about = read_metadata("outliers/digits-val-shuffle.parquet")
    assert (about["source"], about["split"], about["n"]) == ("digits", "val:shuffle", 200)
    lmd(*score, "digits", "--split", "val:shuffle")              # the same file, so there is nothing to do
    assert [p.name for p in Path("outliers").iterdir()] == ["digits-val-shuffle.parquet"]
    assert "no outliers of the kind 'blur'" in message(lmd(*score, "digits:val:blur", code=1))
    verified = lmd("verify", *scored, "outliers/digits-val-shuffle.parquet", "-n", 20, "--device", "cpu")
    assert verified.stdout.count("ok") == 6


def test_a_csv_is_for_a_reader(lmd, scored, model):
    lmd("score", "letters", "--model", model, *QUICKLY, "--out", "readable.csv")
    readable, rows = pd.read_csv("readable.csv"), pd.read_parquet("readable.parquet")
    assert list(readable) == ["image", "ssim", "mse"] and readable["image"][3] == "letters 3"
    assert largest_relative_difference(pd.read_parquet(scored[1]), rows) <= 1e-3
    np.testing.assert_allclose(readable["mse"], rows.groupby("image")["mse"].median(), rtol=1e-5)


def test_several_sources_need_a_folder(lmd, model):
    got = lmd("score", "digits", "letters", "--model", model, *QUICKLY, "--out", "one.parquet", code=1)
    assert "would go to one file" in message(got) and not Path("one.parquet").exists()


def test_another_method_needs_its_own_network(lmd, repairer):
    lmd("score", "digits", "--model", repairer, *REPAIRING, "--out", "repaired.parquet")
    columns = ["image", "attempt", "mse-downsample-2", "mse-identity"]
    assert list(pd.read_parquet("repaired.parquet").columns) == columns


@pytest.mark.slow
def test_a_method_alone_has_its_defaults(lmd, model):
    by_method = "--method", "diffpath", "--device", "cpu"
    score = "score", "letters", "--model", model, *by_method, "--out", "diffpath.csv"
    lmd(*score)
    assert len(pd.read_csv("diffpath.csv")) == 396
    wrong = message(lmd(*score, "--setting", "quick", code=1))
    assert "is a setting of the method lmd, not of diffpath" in wrong
    got = lmd("score", "letters", "--model", model, "--out", "x.parquet", code=2)
    assert "name a --setting or a --method" in got.stderr


def test_help_names_all_methods(lmd):
    words = lmd("score", "--help").output.replace("-\n", "-").split()
    assert all(m in "".join(words) for m in methods)


@pytest.mark.parametrize("asked,given", [((), 1), (("--batch", 7), 7)])
def test_a_batch_fits_into_memory(lmd, model, repairer, asked, given):
    "With next to no memory a denoiser sees one pair at a time; other networks are small"
    def batch(folder, *asked):
        with patch("psutil.virtual_memory", lambda: SimpleNamespace(available=1)), \
             patch("lmd.outliers.score_sets", return_value={}) as run:
            lmd("score", "digits", "--model", folder, *QUICKLY, *asked, "--out", "none.parquet")
        return run.call_args.args[7]
    assert batch(model, *asked) == given
    assert batch(repairer, *asked) == (7 if asked else 250)


def test_batch_size_changes_nothing(lmd, scored, model):
    lmd("score", "letters", "--model", model, *QUICKLY, "--batch", 33, "--out", "batch.parquet")
    assert largest_relative_difference(pd.read_parquet(scored[1]), pd.read_parquet("batch.parquet")) <= 1e-3


def test_eval_is_what_scikit_learn_says(lmd, scored):
    inside, outside = (pd.read_parquet(f).groupby("image")["mse"].max() for f in scored)
    out = np.repeat([0, 1], [len(inside), len(outside)])
    expected = roc_auc_score(out, np.concatenate([inside, outside]))
    assert f"{expected:.4f}" in lmd("eval", *scored, "--column", "mse", "--aggregate", "max").stdout


def test_verify(lmd, scored, model):
    "Scores in float32 and in bfloat16 are found again, drifted ones are not"
    lmd("score", "letters", "--model", model, "--setting", "half", "--device", "cpu", "--out", "half.parquet")
    verify = "verify", "--device", "cpu", "-n", 50
    assert lmd(*verify, *scored, "half.parquet").stdout.count("ok") == 6
    assert lmd(*verify, scored[1], "--nfe", 10).stdout.count(": 4 images") == 2
    frame, about = pd.read_parquet(scored[1]), read_metadata(scored[1])
    write_table(frame.assign(mse=frame.mse*1.03), "drifted.parquet", **about)
    assert "drifted.parquet mse" in message(lmd(*verify, "drifted.parquet", "--bias", .01, code=1))
    write_table(frame, "foreign.parquet", **about | dict(weights="other"))
    assert "other weights" in message(lmd(*verify, "foreign.parquet", code=1))


# ---- pictures

def test_reconstruct_shows_what_was_scored(lmd, scored, model):
    lmd("reconstruct", "letters", "digits", "--model", model, *QUICKLY, "-n", 3, "--out", "images")
    scores = pd.read_parquet(scored[1]).query("image < 3")
    with np.load("images/letters.npz") as e:
        np.testing.assert_allclose(e["mse"].ravel(), scores["mse"], rtol=1e-3)
        assert (e["original"] == (to_model(load("letters")[:3], 16, 1).numpy() * 127.5 + 127.5).round()).all()
        assert e["mask"].shape == e["reconstruction"].shape == (3, 2, 1, 16, 16)
        known = np.broadcast_to(e["original"][:, None], (3, 2, 1, 16, 16))
        assert (e["reconstruction"][e["mask"]] == known[e["mask"]]).all()
    assert Path("images/digits.npz").exists()


def test_reconstruct_shows_what_was_repaired(lmd, model, repairer):
    repair = "reconstruct", "digits", "--model", repairer, *REPAIRING, "-n", 3
    lmd(*repair, "--out", "repairs.npz")
    lmd(*repair, "--out", "one.npz", "--erosion", "downsample-2")
    with np.load("repairs.npz") as e, np.load("one.npz") as few:
        assert (e["identity eroded"] == e["original"]).all()                    # nothing was taken away
        assert e["downsample-2 repaired"].shape == (3, 1, 16, 16)
        assert not (e["downsample-2 eroded"] == e["original"]).all()
        assert set(few.files) == {"image", "original", "downsample-2 eroded", "downsample-2 repaired"}
        assert (few["downsample-2 repaired"] == e["downsample-2 repaired"]).all()
    got = lmd(*repair, "--out", "none.npz", "--erosion", "blur", code=1)
    assert "has no erosion blur" in message(got)
    klip = "--model", model, "--setting", "klip", "--device", "cpu"
    got = lmd("reconstruct", "digits", *klip, "--out", "none.npz", code=1)
    assert "paints nothing" in message(got) and not Path("none.npz").exists()


@pytest.fixture
def calibrated(lmd, model):
    "A calibration with enough attempts for maps: the options of `lmd detect`"
    if not Path("calibrated.json").exists():
        with_model = "--model", model, "--setting", "longer", "--device", "cpu"
        lmd("score", "digits:val", "letters", *with_model, "--out", "scores/tiny/longer")
        got = lmd("calibrate", "scores/tiny/longer/digits-val.parquet", "--out", "calibrated")
        assert "ssim, mse; calibrated on 100 images" in got.stdout
    return "--model", model, "--calibration", "calibrated", "--device", "cpu"


def test_calibrate(lmd, calibrated, model):
    calibrate = "calibrate", "scores/tiny/longer/digits-val.parquet", "--out"
    assert "psnr" in message(lmd(*calibrate, "no", "--quantity", "psnr", code=1))
    assert not Path("no.json").exists()
    files = {p: p.read_bytes() for p in model.rglob("*") if p.is_file()}
    for name in ("lmd", "mine", "unet/config", "unet/calibration"):      # only as MODEL/calibration
        said = message(lmd(*calibrate, model / name, code=1))
        assert "choose another place" in said and f"{model}/calibration" in said
    assert {p: p.read_bytes() for p in model.rglob("*") if p.is_file()} == files
    Path("package.json").write_text("{}")
    assert "package.json is no calibration" in message(lmd(*calibrate, "package", code=1))


def test_calibrate_looks_at_what_is_scored(lmd, calibrated, model, tmp_path):
    "Made-up outliers and repeated scores are refused; images of another set bring a warning"
    val, letters = "scores/tiny/longer/digits-val.parquet", "scores/tiny/longer/letters.parquet"
    with_model = "--model", model, "--setting", "longer", "--device", "cpu"
    lmd("score", "digits:val:flip", *with_model, "--out", tmp_path / "flip.parquet")
    shutil.copy(val, tmp_path / "copy.parquet")
    for files, words in (([tmp_path / "flip.parquet"], "outliers (flip) that were made of digits"),
                         ([val, tmp_path / "flip.parquet"], "outliers (flip) that were made of digits"),
                         ([val, val], "the same method and setting"),
                         ([val, tmp_path / "copy.parquet"], "copy.parquet holds scores of the same method")):
        assert words in message(lmd("calibrate", *files, "--out", tmp_path / "no", code=1))
    assert not (tmp_path / "no.json").exists()
    doubt = "holds scores of letters, but tiny was trained on digits"
    assert doubt in lmd("calibrate", letters, "--out", tmp_path / "letters").stderr
    elsewhere = lmd("calibrate", letters, "--out", tmp_path / "letters", "--models", tmp_path)
    assert "trained on" not in elsewhere.stderr                      # the model is not there to be asked
    assert "trained on" not in lmd("calibrate", val, "--out", tmp_path / "good").stderr


def test_calibrate_in_other_ways(lmd, calibrated, tmp_path):
    calibrate = "calibrate", "scores/tiny/longer/digits-val.parquet", "--out", tmp_path / "way"
    lmd(*calibrate, "--combine", "mean", "--quantity", "mse")
    about = json.loads((tmp_path / "way.json").read_text())["combination"]
    assert (about["combine"], about["quantities"]) == ("mean", ["mse"])
    assert "there are mean, upper, max" in message(lmd(*calibrate, "--combine", "fisher", code=1))
    assert "leave each away" in message(lmd(*calibrate, "--each", "column", code=1))
    assert "member" in message(lmd(*calibrate, "--each", "image", code=2))
    assert "there are ssim, mse" in message(lmd(*calibrate, "--quantity", "lmd:mse", code=1))


def test_detect(lmd, calibrated, model):
    table = pd.read_csv(io.StringIO(lmd("detect", "letters", *calibrated, "--fpr", .1).stdout))
    assert list(table) == ["image", "score", "p_value", "flagged"] and table["image"][3] == "letters 3"
    assert (table["flagged"] == (table["p_value"] <= .1)).all()
    scores = pd.read_parquet("scores/tiny/longer/letters.parquet")     # `lmd score` and `lmd calibrate` agree
    truth = open_calibrated("calibrated", model).combination.score(measurements(scores)[0])
    assert np.abs(table["score"] - truth).max() < .1
    got = lmd("detect", "letters", *calibrated, "--fpr", .001, code=1)
    assert "cannot flag anything at a false-positive rate of 0.001" in message(got)


def test_detect_explains(lmd, calibrated, tmp_path):
    written = "--maps", tmp_path / "maps", "--report", tmp_path / "page.html"
    got = lmd("detect", "./pictures", *calibrated, "--fpr", .9, *written)
    flagged = pd.read_csv(io.StringIO(got.stdout))["flagged"].sum()
    assert len(list((tmp_path / "maps").iterdir())) == flagged >= 1
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<figure") >= flagged and "<h2>Flagged</h2>" in page
    assert "verdicts lie within what the seed changes" in got.stderr and "4 pictures" in got.stderr


def test_detect_finds_the_calibration_of_the_model(lmd, calibrated, model):
    got = lmd("detect", "./pictures", "--model", model, "--device", "cpu", code=1)
    assert "has no calibration.json" in message(got)
    lmd("calibrate", "scores/tiny/longer/digits-val.parquet", "--out", model / "calibration")
    lmd("calibrate", "scores/tiny/longer/digits-val.parquet", "--out", model / "cheap-panel")
    try:
        alone = lmd("detect", "./pictures", "--model", model, "--device", "cpu").stdout
        assert alone == lmd("detect", "./pictures", *calibrated).stdout      # the weights are still the same
        named = "--calibration", "cheap-panel", "--model", model, "--device", "cpu"
        assert alone == lmd("detect", "./pictures", *named).stdout
        got = lmd("detect", "./pictures", "--calibration", "default-panel", *named[2:], code=1)
        assert "there is no default-panel.json" in message(got)
        assert f"beside the weights in {model}: calibration, cheap-panel)" in message(got)
    finally:
        for file in [*model.glob("calibration.*"), *model.glob("cheap-panel.*")]: file.unlink()


def test_detect_refuses_before_it_fits(lmd, calibrated, monkeypatch, tmp_path):
    "What is cheap to look at is looked at first: weights, the rate, the pictures"
    def dear(*_): raise AssertionError("a detector was made for nothing")
    monkeypatch.setattr("lmd.settings.Setting.detector", dear)
    about, arrays = load_plain("calibrated")
    about["identity"]["weights"] = "others"
    save_plain(tmp_path / "other", about, arrays)
    (tmp_path / "empty").mkdir()
    other = *calibrated[:3], tmp_path / "other", *calibrated[4:]
    for source, options, words in (("./pictures", other, "was calibrated for another detector: weights was"),
                                   ("./pictures", (*calibrated, "--fpr", .001), "cannot flag anything"),
                                   (tmp_path / "empty", calibrated, "empty"),
                                   (tmp_path / "nowhere", calibrated, "nowhere")):
        assert words in message(lmd("detect", source, *options, code=1))


def test_detect_looks_at_all_of_a_picture(lmd, calibrated, tmp_path):
    digits = load("digits")
    Image.fromarray(np.hstack(digits[:5])).save(tmp_path / "row.png")
    tiled = tmp_path / "row.png", *calibrated, "--maps", tmp_path / "maps", "--fpr", .99
    for options, panel in (((), 512), (("--tile",), 512), (("--tile-side", 4), 512)):
        table = pd.read_csv(io.StringIO(lmd("detect", *tiled, *options).stdout))
        assert len(table) == 1 and 0 < table["p_value"][0] <= 1
    got = lmd("detect", *tiled[:-1], .05, "--tile-side", 2)
    assert "have too many squares to be flagged" in got.stderr


def test_names_end_no_run(lmd, calibrated, model, tmp_path):
    "Names that are no text, mark-up, a formula, or too long for a longer one"
    names = ["a$$b.png", "=1+1.png", "x" * 240 + ".png", "<b>&.png", 'quote".png', "new\nline.png", "雨.png",
             os.fsdecode(b"caf\xe9.png"), "$\\frac{.png", "-x.png", "@SUM(1).png", "%s{}.png", " .png"]
    digits = load("digits")
    (tmp_path / "odd").mkdir()
    for i, name in enumerate(names): Image.fromarray(digits[i]).save(tmp_path / "odd" / name)
    got = lmd("detect", tmp_path / "odd", *calibrated, "--fpr", .99, "--maps", tmp_path / "maps",
              "--report", tmp_path / "page.html")
    table = pd.read_csv(io.StringIO(got.stdout))
    assert len(table) == len(names) and f"{tmp_path}/odd/caf\\xe9.png" in set(table["image"])
    assert len(list((tmp_path / "maps").iterdir())) == table["flagged"].sum() >= 5
    assert "<b>&" not in (tmp_path / "page.html").read_text(encoding="utf-8")
    out = tmp_path / "scores.csv"
    lmd("score", tmp_path / "odd", "--model", model, *QUICKLY, "--out", out)
    assert len(pd.read_csv(out)) == len(names)
    stream = b"\n".join(os.fsencode(tmp_path / "odd" / name) for name in names if "\n" not in name)
    again = pd.read_csv(io.StringIO(lmd("detect", "-", *calibrated, stdin=stream).stdout))
    known = table.set_index("image")["score"]
    np.testing.assert_allclose(again["score"], known[again["image"]], rtol=1e-3, atol=1e-3)


def test_no_formula_in_a_spreadsheet(lmd, calibrated, tmp_path, monkeypatch, place):
    options = [place / v if i in (1, 3) else v for i, v in enumerate(calibrated)]
    Image.fromarray(load("digits")[0]).save(tmp_path / "=1+1.png")
    monkeypatch.chdir(tmp_path)
    got = lmd("detect", "-", *options, stdin="=1+1.png\n")
    assert got.stdout.splitlines()[1].startswith('"./=1+1.png"')


def test_detect_answers_a_stream(lmd, calibrated):
    paths = "pictures/0000.png\nnowhere.png\n\npictures/0001.png\n"
    got = lmd("detect", "-", *calibrated, "--skip-unreadable", stdin=paths, code=3)
    assert list(pd.read_csv(io.StringIO(got.stdout))["image"]) == ["pictures/0000.png", "pictures/0001.png"]
    assert "skipped nowhere.png: " in got.stderr
    got = lmd("detect", "-", *calibrated, stdin="nowhere.png\n", code=1)
    assert "nowhere.png cannot be read" in message(got)


# ---- from any folder

@pytest.mark.slow
def test_everything_works_from_an_empty_folder(lmd, place, tmp_path, monkeypatch):
    "Train, score, calibrate and detect on a folder, where no parameter file and no set is in sight"
    digits, letters = (load(name, root=place / "data") for name in ("digits", "letters"))
    for split, pictures in (("train", digits[:60]), ("val", digits[60:120]),
                            ("test", [*digits[120:140], *letters[:5]])):
        (tmp_path / "mine" / split).mkdir(parents=True)
        for i, picture in enumerate(pictures):
            Image.fromarray(picture).save(tmp_path / f"mine/{split}/{i:02}.png")
    (tmp_path / "mine/train/broken.png").write_text("no picture")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    small = [part for change in ("size=16", "factor=2", "width=[16, 16]", "steps=20", "batch=8", "warmup=5")
             for part in ("--set", change)]
    train = "train", "../mine", "--config", "gray-64", *small, "--out", "checkpoints/mine", "--device", "cpu"
    assert "broken.png" in message(lmd(*train, code=1))
    trained = lmd(*train, "--skip-unreadable", code=3)
    assert "skipped ../mine/train/broken.png" in trained.stderr and "16 x 16 pixels, gray" in trained.stderr
    assert "million parameters: about" in trained.stderr and "GB of memory" in trained.stderr

    model = "--model", "checkpoints/mine", "--device", "cpu"
    quickly = [part for change in ("steps=2", "attempts=4") for part in ("--set", change)]
    score = "score", "../mine", "--split", "val", *model, "--setting", "demo-no-lpips", *quickly
    lmd(*score, "--out", "scores")
    lmd("calibrate", "scores/mine-val.parquet", "--out", "checkpoints/mine/calibration")
    got = lmd("detect", "../mine", *model, "--maps", "maps", "--report", "page.html", "--fpr", .1)
    table = pd.read_csv(io.StringIO(got.stdout))
    assert len(table) == 25 and "25 pictures" in got.stderr
    assert "flagged at a false-positive rate" in got.stderr
    assert len(list(Path("maps").iterdir())) == table["flagged"].sum()
    again = lmd("detect", "../mine", *model, "--fpr", .1).stdout
    np.testing.assert_allclose(pd.read_csv(io.StringIO(again))["score"], table["score"], atol=.01)


# ---- runs that were stopped

def ctrl_c(*_): signal.raise_signal(signal.SIGINT)


def ctrl_c_at_a_lock(*_):
    "What tqdm does when Ctrl-C comes while it waits for its lock"
    try: ctrl_c()
    finally: raise RuntimeError("cannot release un-acquired lock")


@pytest.mark.parametrize("interrupted", [ctrl_c, ctrl_c_at_a_lock])
def test_ctrl_c_where_nothing_is_kept(lmd, model, monkeypatch, interrupted):
    monkeypatch.setattr("lmd.calibration.open_calibrated", interrupted)
    for source in "-", "./pictures":
        got = lmd("detect", source, "--model", model, "--calibration", "some", code=130)
        assert ("goes on" in got.stderr) == (source != "-")


def test_ctrl_c_while_a_command_is_imported(lmd, monkeypatch):
    monkeypatch.setattr("lmd.cli.import_module", ctrl_c)
    for command in ("detect", "./pictures"), ("study", "plan", "."):
        assert lmd(*command, code=130).stderr.split() == ["stopped"]


def test_a_panel_of_score_files(lmd, place, model):
    "Scores of two methods become one detector, which judges pictures by itself"
    files = []
    for name, more in (("lmd", ()), ("msma", ("--set", "fit=160", "--set", "levels=2"))):
        setting = QUICKLY if name == "lmd" else ("--method", name, "--device", "cpu")
        files.append(f"panel/{name}.parquet")
        lmd("score", "digits:val", "--model", model, *setting, *more, "--out", files[-1])
    said = lmd("calibrate", *files, "--out", "panel/both").stdout
    assert "lmd:ssim" in said and "msma:msma" in said and "calibrated on 100 images" in said
    lmd("calibrate", *files, "--combine", "upper", "--each", "column", "--out", "panel/upper")
    ways = [json.loads(Path(f"panel/{name}.json").read_text())["combination"] for name in ("both", "upper")]
    assert [(way["combine"], way["each"]) for way in ways] == [("fisher", "member"), ("upper", "column")]
    no = "calibrate", *files, "--out", "panel/no"
    assert "upper or max or fisher, not 'sum'" in message(lmd(*no, "--combine", "sum", code=1))
    assert "there are lmd:ssim, lmd:mse, msma:msma" in message(lmd(*no, "--quantity", "ssim", code=1))
    got = lmd("detect", "./pictures", "--model", model, "--calibration", "panel/both", "--device", "cpu")
    assert len(got.stdout.splitlines()) == 5
    lmd("score", "digits", "--model", model, *QUICKLY, "--out", "panel/test.parquet")
    assert "differ" in message(lmd("calibrate", files[0], "panel/test.parquet", "--out", "panel/no", code=1))


def test_a_panel_without_members(lmd, model, tmp_path):
    "The message shows how members are given, and what it shows is taken"
    score = "score", "digits:val", "--model", model, "--method", "panel", "--out", tmp_path / "panel.parquet"
    said = message(lmd(*score, "--device", "cpu", code=1))
    assert "members is empty" in said
    shown = re.search("--set '(members=.*)'", said)[1]
    assert list(load_params("settings", "panel", changes=[shown]).members) == ["lmd", "texture"]


def test_a_panel_of_pictures(lmd, place, tmp_path, monkeypatch):
    "The tutorial's panel: members that are fitted find the pictures that the model was trained on"
    digits = load("digits", "train", root=place / "data")
    for split, some in (("train", digits[:200]), ("val", digits[200:260])):
        (folder := tmp_path / "pictures" / split).mkdir(parents=True)
        for i, picture in enumerate(some): Image.fromarray(picture).save(folder / f"{i}.png")
    shutil.copy(place / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    cpu = "--device", "cpu"
    lmd("train", "pictures/", "--config", "short", "--out", "mine", *cpu)
    val = "score", "pictures/", "--split", "val", "--model", "mine", *cpu
    lmd(*val, "--setting", "quick", "--out", "val.parquet")
    lmd(*val, "--method", "msma", "--set", "levels=2", "--out", "msma.parquet")
    said = lmd("calibrate", "val.parquet", "msma.parquet", "--out", "mine/default-panel")
    assert "msma:msma" in said.stdout and "was trained on" not in said.stderr
    named = "--model", "mine", "--calibration", "default-panel"
    got = lmd("detect", "pictures/val", *named, "--fpr", .1, *cpu)
    assert len(got.stdout.splitlines()) == 61
    members = "members={lmd: {steps: 2, attempts: 2, distances: [mse]}, texture: {method: msma, levels: 2}}"
    lmd(*val, "--method", "panel", "--set", members, "--out", "panel.parquet")
    assert "texture:msma" in lmd("calibrate", "panel.parquet", "--out", "mine/default-panel").stdout
