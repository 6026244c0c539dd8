"A folder of pictures becomes a detector, in one command that can be stopped; labels judge it."
import json
import os
import signal

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from sklearn.metrics import roc_auc_score

from conftest import begun, message, save_pictures, wait_for
from lmd.calibration import open_calibrated
from lmd.checkpoints import checkpoint_fingerprint
from lmd.data import load
from lmd.files import read_scores

SMALL = dict(size=16, width=[16, 16], steps=20, batch=8, warmup=5, dtype="no")
CHEAP = dict(steps=1, attempts=4, dtype="float32", distances=["ssim", "mse"])
OPTIONS = ("--config", "small", "--setting", "cheap", "--params", "fit.yaml", "--device", "cpu")


@pytest.fixture(scope="module", autouse=True)
def folders(place):
    "Good pictures alone, good and bad ones, the layout of MVTec AD, and too few"
    entries = dict(train=dict(small=SMALL), settings=dict(cheap=CHEAP))
    (place / "fit.yaml").write_text(yaml.safe_dump(entries))
    for name in ("marks", "mvtec", "mvtec/train", "mvtec/test"): (place / name).mkdir()
    for name, n in (("plain", 80), ("marks/good", 100), ("mvtec/train/good", 80), ("few", 75)):
        save_pictures(place, name, n)
    letters = load("letters", "test", root=place / "data")
    digits = load("digits", "test", root=place / "data")
    for name, images in (("marks/bad", letters), ("mvtec/test/good", digits), ("mvtec/test/cut", letters),
                         ("mvtec/test/hole", letters[20:])):
        (place / name).mkdir()
        for i in range(12): Image.fromarray(images[i]).save(place / name / f"{i}.png")


@pytest.fixture(scope="module")
def detector(place):
    "A detector of the labelled pictures, and what the command said"
    from click.testing import CliRunner
    from lmd.cli import main
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return CliRunner().invoke(main, ["fit", "marks", "--out", "detectors/marks", *OPTIONS],
                                  catch_exceptions=False)


def states(folder):
    "When the parts of a detector were written"
    names = "lmd.json", "unet/diffusion_pytorch_model.safetensors", "scores/cheap/val.parquet"
    return [(folder / name).stat().st_mtime_ns for name in names]


def test_a_detector_is_ready(lmd, place, detector):
    "What is said before and afterwards, and the command that it names"
    assert detector.exit_code == 0, detector.output
    before, after = detector.stderr, detector.stdout.splitlines()
    assert "50 pictures to train on, 19 to fit the combination, 19 to calibrate, 12 good and 12 bad" in before
    assert " for 20 steps, about " in before and "GB of memory on cpu" in before
    assert "plain fill" in after[0] and "smallest rate that can be asked for is 0.05" in after[1]
    assert "another seed changes a score by" in after[2] and "ROC-AUC" in after[3]
    command = after[4].split()
    assert command[:3] == ["lmd", "detect", "./new"]
    got = lmd("detect", "./marks/bad", *command[3:], "--device", "cpu")
    assert len(got.stdout.splitlines()) == 13


def test_judged_by_what_it_has_not_seen(place, detector):
    "Each picture has one purpose, and the ROC-AUC is that of the verdicts"
    folder = place / "detectors/marks"
    table = pd.read_csv(folder / "verdicts.csv")
    assert table["label"].value_counts().to_dict() == {"good": 12, "bad": 12}
    auc = roc_auc_score(table["label"] == "bad", table["score"])
    assert f"ROC-AUC {auc:.3f}" in detector.stdout
    assert (table["flagged"] == (table["p_value"] <= .05)).all()
    assert Image.open(folder / "errors.png").width > 100
    calibrated = open_calibrated(folder / "calibration", folder)
    assert len(calibrated.calibration_scores()) == 19
    assert set(read_scores(folder / "scores/cheap/val.parquet")["image"]) == set(range(38))


@pytest.mark.slow
def test_done_once(lmd, place, detector):
    "The same command again changes nothing; a longer training goes on, and is scored anew"
    folder = place / "detectors/marks"
    before = states(folder)
    got = lmd("fit", "marks", "--out", "detectors/marks", *OPTIONS)
    assert "trained already, scored already" in got.stderr and states(folder) == before
    assert got.stdout == detector.stdout
    got = lmd("fit", "marks", "--out", "detectors/longer", *OPTIONS, "--set", "steps=25")
    assert " for 5 of 25 steps, " in got.stderr and states(folder) == before


@pytest.mark.slow
def test_stopped_and_resumed(lmd, place, process):
    "Stopped in the training and in the scoring, it comes to the same detector"
    more = "--set", "steps=100", "--seed", "3"
    lmd("fit", "plain", "--out", "detectors/whole", *OPTIONS, *more, "--work", "whole")
    command = "fit", "plain", "--out", "detectors/parts", *OPTIONS, *more, "--work", "parts"
    run = process(*command)
    wait_for(begun(run, 100), run)
    run.send_signal(signal.SIGINT)
    assert run.wait(120) == 130 and list((place / "parts").glob("fit-*/state.pt"))
    assert not (place / "detectors/parts").exists()
    run = process(*command)
    wait_for(lambda: (place / "detectors/parts/lmd.json").exists(), run)
    run.kill()
    run.wait()
    before = (place / "detectors/parts/lmd.json").stat().st_mtime_ns
    got = lmd(*command)
    assert "trained already" in got.stderr
    assert (place / "detectors/parts/lmd.json").stat().st_mtime_ns == before
    assert checkpoint_fingerprint("detectors/parts") == checkpoint_fingerprint("detectors/whole")
    one, other = (open_calibrated(f"detectors/{name}/calibration", f"detectors/{name}").calibration_scores()
                  for name in ("whole", "parts"))
    assert np.array_equal(one, other)


def test_the_layout_of_mvtec(lmd):
    got = lmd("fit", "mvtec", "--out", "detectors/mvtec", *OPTIONS)
    assert "42 pictures to train on" in got.stderr and "12 good and 24 bad ones to judge by" in got.stderr


def test_pictures_that_cannot_be_read(lmd, place):
    "Named, left out where that is asked for, and the exit code says so"
    (place / "torn").mkdir()
    for path in (place / "plain").glob("*.png"): os.link(path, place / "torn" / path.name)
    (place / "torn/bad.png").write_bytes(b"\x89PNG")
    assert "bad.png" in message(lmd("fit", "torn", "--out", "detectors/torn", *OPTIONS, code=1))
    got = lmd("fit", "torn", "--out", "detectors/torn", *OPTIONS, "--skip-unreadable", code=3)
    assert "skipped" in got.stderr and "lmd detect ./new" in got.stdout
    assert json.loads((place / "detectors/torn/lmd.json").read_text())["data"] == "torn"


@pytest.mark.parametrize("args,said", [
    (["few"], "there are 75 different good pictures, but at least 76 are needed"),
    (["marks", "--fpr", ".01"], "there are 100 different good pictures, but at least 416 are needed"),
    (["marks", "--fpr", "1"], "a false-positive rate lies between 0 and 1"),
    (["nowhere"], "there is no folder nowhere"),
    (["marks", "--set", "stepz=3"], "unknown setting stepz"),
    (["marks", "--setting", "msma"], "the method msma cannot be used here"),
    (["data"], "at least 76 are needed"),
])
def test_refused(lmd, place, args, said):
    "Before anything is trained"
    got = lmd("fit", *args[:1], "--out", "detectors/new", *OPTIONS, *args[1:], code=1)
    assert said in message(got)
    assert not (place / "detectors/new").exists()


def test_out_among_the_pictures(lmd):
    assert "lies among the pictures" in message(lmd("fit", "plain", "--out", "plain/new", *OPTIONS, code=1))
