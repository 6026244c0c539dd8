"What is refused: settings, checkpoints, sources, pictures, trainings and score files that are wrong."
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from conftest import BAD_SETTINGS, BAD_TRAININGS, QUICKLY, largest_relative_difference, message
from lmd.files import read_metadata, write_table


@pytest.fixture
def refused(lmd, tmp_path, model):
    "Score something that must not be scored; the message"
    def score(source="digits", *, model=model, setting="quick", params="params.yaml", code=1):
        got = lmd("score", source, "--model", model, "--setting", setting, "--params", params,
                  "--device", "cpu", "--out", tmp_path / "refused/scores.parquet", code=code)
        assert not list(tmp_path.glob("refused/*"))
        return message(got)
    return score


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_bad_setting(refused, name):
    assert BAD_SETTINGS[name][1] in refused(setting=name)


def test_unknown_setting(refused):
    said = refused(setting="quik")
    assert "no 'quik' under settings; there are " in said and "quick, other, " in said


@pytest.mark.parametrize("text,expected", {
    "missing": (None, "no parameter file"),
    "empty": ("", "no 'quick' under settings"),
    "not-yaml": ("settings: {a: [", "not valid YAML"),
    "list-of-settings": ("settings: [quick]", "settings"),
    "misspelt-section": ("setting: {quick: {steps: 2}}", "no 'quick' under settings"),
}.values(), ids=["missing", "empty", "not-yaml", "list-of-settings", "misspelt-section"])
def test_bad_parameter_file(refused, tmp_path, text, expected):
    params = tmp_path / "params.yaml"
    if text is not None: params.write_text(text)
    said = refused(params=params)
    assert expected in said and str(params) in said


def unseal(folder):
    "Without the md5s, as in version 0.1, so that what is wrong is found by itself"
    change_json(folder, md5=None, weights=None)


def change_json(folder, **changes):
    file = folder / "lmd.json"
    about = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in about.items() if v is not None}))


def change_weights(folder, change):
    file = next(folder.glob("unet/*.safetensors"))
    save_file({k: change(v) for k, v in load_file(file).items()}, file)


def truncate(file): file.write_bytes(file.read_bytes()[:file.stat().st_size // 2])


DAMAGES = {
    "missing": (shutil.rmtree, "no checkpoint at"),
    "empty": (lambda f: [shutil.rmtree(f), f.mkdir()], "no checkpoint at"),
    "no-weights": (lambda f: next(f.glob("unet/*.safetensors")).unlink(), "is missing"),
    "truncated-weights": (lambda f: truncate(next(f.glob("unet/*.safetensors"))), "truncated"),
    "nan-weights": (lambda f: change_weights(f, lambda w: w * torch.nan), "NaN"),
    "infinite-weights": (lambda f: change_weights(f, lambda w: w / 0), "infinite"),
    "truncated-lmd-json": (lambda f: truncate(f / "lmd.json"), "lmd.json"),
    "incomplete-lmd-json": (lambda f: change_json(f, factor=None), "factor"),
    "another-image-size": (lambda f: change_json(f, size=32), "images of 32"),
    "unknown-schedule": (lambda f: change_json(f, schedule=dict(name="vp")), "unknown schedule 'vp'"),
    "unknown-prediction": (lambda f: change_json(f, prediction="noise"), "unknown prediction type 'noise'"),
    "truncated-config": (lambda f: truncate(f / "unet/config.json"), "config.json"),
}


# the md5s of lmd.json find these before anything else does
SEALED = {"truncated-weights", "nan-weights", "infinite-weights", "incomplete-lmd-json", "another-image-size",
          "unknown-schedule", "unknown-prediction"}


@pytest.mark.parametrize("name", DAMAGES)
def test_bad_checkpoint(refused, place, model, tmp_path, name):
    damage, expected = DAMAGES[name]
    folder = shutil.copytree(place / model, tmp_path / "damaged")
    damage(folder)
    said = refused(model=folder)
    if name not in SEALED: assert expected in said
    else:
        assert "is damaged" in said
        unseal(folder)
        assert expected in refused(model=folder)


def test_bad_source(refused, tmp_path):
    assert "there is no set 'digitz'" in refused("digitz")
    assert "lmd data fetch mnist" in refused("mnist")
    assert "no file or folder" in refused(f"{tmp_path}/nowhere")
    (tmp_path / "empty").mkdir()
    assert "no readable pictures" in refused(f"{tmp_path}/empty")
    (tmp_path / "empty/notes.txt").write_text("no picture")
    assert "no readable pictures" in refused(f"{tmp_path}/empty")


@pytest.mark.parametrize("name", ["cut.png", "text.jpg", "nan.tiff", "infinite.tiff", "huge.tiff"])
def test_unreadable_picture(lmd, refused, place, model, tmp_path, name):
    folder = shutil.copytree(place / "pictures", tmp_path / "pictures")
    if name == "cut.png": (folder / name).write_bytes((folder / "0000.png").read_bytes()[:60])
    elif name == "text.jpg": (folder / name).write_text("no picture")
    else:
        value = {"nan.tiff": np.nan, "infinite.tiff": np.inf, "huge.tiff": 1e6}[name]
        Image.fromarray(np.full((16, 16), value, np.float32)).save(folder / name)
    assert f"1 of 5 pictures cannot be read: {folder}/{name}" in refused(folder)

    got = lmd("score", folder, "--model", model, *QUICKLY, "--skip-unreadable",
              "--out", tmp_path / "others.parquet", code=3)
    assert f"skipped {folder}/{name}" in got.stderr
    listed = [Path(p).name for p in read_metadata(tmp_path / "others.parquet")["pictures"]]
    assert listed == [f"{i:04}.png" for i in range(4)]
    lmd("score", "./pictures", "--model", model, *QUICKLY, "--out", tmp_path / "all.parquet")
    others, everything = (pd.read_parquet(tmp_path / f"{f}.parquet") for f in ("others", "all"))
    assert len(others) == 4*2 and largest_relative_difference(everything, others) <= 1e-3


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    "A folder as people have them; the second value names what cannot be read"
    folder = tmp_path_factory.mktemp("mixed")
    gray = Image.fromarray(np.arange(12 * 20, dtype=np.uint8).reshape(12, 20))
    colour = Image.merge("RGB", [gray, gray.transpose(Image.Transpose.FLIP_LEFT_RIGHT), gray])
    gray.save(folder / "gray.png")
    colour.save(folder / "colour.jpg")
    colour.convert("CMYK").save(folder / "cmyk.tiff")
    colour.quantize(16).save(folder / "palette.gif")
    colour.resize((300, 40)).save(folder / "wide.webp")
    gray.resize((1, 1)).save(folder / "one-pixel.png")
    Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 257).save(folder / "deep.png")
    transparent = colour.copy()
    transparent.putalpha(gray)
    transparent.save(folder / "transparent.png")
    Image.new("1", (10_000, 10_000)).save(folder / "large.png")                     # 100 megapixels
    Image.new("1", (20_000, 10_000)).save(folder / "bomb.png")          # 200: Pillow takes it for an attack
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("no picture")
    (folder / "notes.txt").write_text("not meant to be one")
    (folder / "cut.png").write_bytes((folder / "deep.png").read_bytes()[:60])
    return folder, ("bomb.png", "cut.png", "empty.png", "text.jpg")


def test_any_folder(lmd, refused, place, model, mixed, tmp_path):
    "What can be read is judged and listed, what cannot is named, and the exit code tells"
    folder, bad = mixed
    said = refused(folder)
    assert "4 of 13 pictures cannot be read" in said and all(name in said for name in bad)
    lmd("score", "digits", "--split", "val", "--model", model, *QUICKLY, "--out", tmp_path / "val.parquet")
    lmd("calibrate", tmp_path / "val.parquet", "--out", tmp_path / "calibrated")
    options = "--model", model, "--calibration", tmp_path / "calibrated", "--device", "cpu"
    detect = "detect", folder, *options
    lmd(*detect, code=1)
    maps = "--skip-unreadable", "--maps", tmp_path / "maps"
    got = lmd(*detect, *maps, code=1)                           # two attempts are too few
    assert "allows no maps" in message(got)
    got = lmd(*detect, "--skip-unreadable", "--report", tmp_path / "page.html", code=3)
    assert all(f"skipped {folder}/{name}" in got.stderr for name in bad) and "notes.txt" not in got.output
    table = pd.read_csv(io.StringIO(got.stdout))
    good = {"gray.png", "colour.jpg", "cmyk.tiff", "palette.gif", "wide.webp", "one-pixel.png", "deep.png",
            "transparent.png", "large.png"}
    assert {Path(name).name for name in table["image"]} == good
    assert np.isfinite(table[["score", "p_value"]]).all(axis=None)
    page = (tmp_path / "page.html").read_text()
    assert all(name in page for name in bad)
    paths = "\n".join(str(folder / name) for name in ("gray.png", "empty.png", "deep.png"))
    again = lmd("detect", "-", *options, "--skip-unreadable", stdin=paths, code=3)
    assert "skipped" in again.stderr
    single = pd.read_csv(io.StringIO(again.stdout)).set_index("image")
    assert list(single.index) == [str(folder / name) for name in ("gray.png", "deep.png")]


def test_damaged_data(lmd, model, place, tmp_path):
    shutil.copytree(place / "data/digits", tmp_path / "digits")
    array = bytearray((tmp_path / "digits/test.npy").read_bytes())
    array[-1] ^= 1
    (tmp_path / "digits/test.npy").write_bytes(array)
    got = lmd("score", "digits", "--root", tmp_path, "--model", model, *QUICKLY,
              "--out", tmp_path / "refused/scores.parquet", code=1)
    assert "is damaged (md5 differs" in message(got)
    assert not (tmp_path / "refused").exists()


def test_damaged_download(lmd, tmp_path):
    (tmp_path / "mirror/data/mnist").mkdir(parents=True)
    (tmp_path / "mirror/data/mnist/train-images-idx3-ubyte.gz").write_bytes(b"something else")
    fetch = "data", "fetch", "mnist", "--root", tmp_path / "data", "--mirror"
    assert "should be f68b3c2dcbeaaa9fbdd348bbdeb94873" in message(lmd(*fetch, tmp_path / "mirror", code=1))
    assert "is not a folder" in message(lmd(*fetch, tmp_path / "no-mirror", code=1))
    assert not (tmp_path / "data/mnist").exists()


@pytest.mark.parametrize("name", BAD_TRAININGS)
def test_bad_training(lmd, name):
    got = lmd("train", "digits", "--config", name, "--out", "checkpoints/refused", "--device", "cpu", code=1)
    assert BAD_TRAININGS[name][1] in message(got)
    assert not Path("checkpoints/refused").exists() and not Path("runs/refused").exists()


def test_unknown_training(lmd):
    for name, wrong in (("letters", ()), ("tinny", ("--config", "tinny"))):
        got = lmd("train", "letters", *wrong, "--out", "checkpoints/refused", "--device", "cpu", code=1)
        assert f"no '{name}' under train; there are " in message(got) and ", tiny, short, " in message(got)


def test_training_needs_training_images(lmd):
    train = "train", "--config", "tiny", "--out", "checkpoints/refused", "--device", "cpu"
    assert "letters is a test set only" in message(lmd(*train, "letters", code=1))
    assert "has no split train" in message(lmd(*train, "./pictures", code=1))


def test_training_of_another_configuration_is_not_taken_up(lmd, model, tmp_path):
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["train"]["tiny"]["lr"] = .5
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    changed = "--params", tmp_path / "params.yaml", "--config", "tiny", "--run", "runs/tiny"
    got = lmd("train", "digits", *changed, "--out", "checkpoints/refused", "--device", "cpu", code=1)
    assert "other settings (lr differ)" in message(got)


def test_bad_evaluation(lmd, scored, model, tmp_path):
    def evaluated(*args, code=1): return message(lmd("eval", *args, code=code))
    inside, outside = scored
    assert "does not exist" in evaluated(inside, "nowhere.parquet", code=2)
    (tmp_path / "text.parquet").write_text("no scores")
    assert "text.parquet" in evaluated(inside, tmp_path / "text.parquet")
    assert "text.parquet" in evaluated(tmp_path / "text.parquet", outside)
    pd.DataFrame(dict(image=[0], attempt=[0], ssim=[1.])).to_parquet(tmp_path / "plain.parquet")
    assert "plain.parquet" in evaluated(inside, tmp_path / "plain.parquet")
    assert "there are ssim, mse" in evaluated(inside, outside, "--column", "lpips")
    assert "no aggregate 'mode'" in evaluated(inside, outside, "--aggregate", "mode")

    other = "--setting", "other", "--device", "cpu", "--out", tmp_path / "other.parquet"
    lmd("score", "letters", "--model", model, *other)
    assert "not scored with the same setting" in evaluated(inside, tmp_path / "other.parquet")
    frame, about = pd.read_parquet(outside), read_metadata(outside)
    write_table(frame, tmp_path / "model.parquet", **about | dict(weights="another"))
    assert "not scored with the same weights" in evaluated(inside, tmp_path / "model.parquet")
    write_table(frame[1:], tmp_path / "short.parquet", **about)
    assert "lack some of the 2 attempts" in evaluated(inside, tmp_path / "short.parquet")
    lacking = frame.assign(ssim=frame["ssim"].where(frame["image"] != 5))
    write_table(lacking, tmp_path / "nan.parquet", **about)
    assert "1 of 396 images have NaN" in evaluated(inside, tmp_path / "nan.parquet")


@pytest.mark.slow
def test_process_fails_in_one_line(process, model):
    run = process("score", "digitz", "--model", model, *QUICKLY, "--out", "refused/scores.parquet")
    output, errors = run.communicate(timeout=120)
    assert run.returncode == 1 and output == "" and errors.count("\n") == 1
    assert errors.startswith("Error: there is no set 'digitz'")
