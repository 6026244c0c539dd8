"paper_scale/ in small: its own stages and parameters, from files in the official formats to Table 1."
import dataclasses
import gzip
import hashlib
import json
import shlex
import struct
from functools import partial

import click
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from click.testing import CliRunner
from dvc.repo import Repo
from jupyter_client.manager import KernelManager
from PIL import Image

from conftest import ROOT
from lmd import data, releasing
from lmd.cli import main
from lmd.files import read_npz
from lmd.inpainting import sample
from lmd.published import import_checkpoint
from lmd.settings import known_entries, load_params
from lmd.study.pages import run_page

FOLDER = ROOT / "paper_scale"
SETS, MODELS = ["mnist", "kmnist", "fashionmnist"], ["mnist", "kmnist"]
METHODS = ["complexity", "diffpath", "msma", "ddpm-ood"]
ALONE = ["default", "fast", "klip", *METHODS]     # by the first model alone
SETTINGS = ["paper", *ALONE]
# what makes it small: two steps, narrow networks, four images
SMALL_TRAININGS = dict(steps=2, batch=4, width=[16, 16, 16, 16], layers=1, warmup=1, dtype="no")
SMALL_VAE = dict(steps=2, batch=4, width=8, latent=4)
SMALL_SETTINGS = {
    "paper": dict(steps=2, attempts=2, distances=["ssim", "mse"]),
    "default": dict(steps=2, attempts=2, distances=["ssim", "mse"]),
    "fast": dict(attempts=2, distances=["ssim", "mse"]),
    "complexity": dict(steps=2), "diffpath": dict(fit=20, steps=2, components=[1, 2]),
    "msma": dict(fit=20, levels=2, components=[1, 2]),
    "ddpm-ood": dict(steps=4, starts=[2], fit=8, distances=["mse"]), "klip": dict(steps=3, chains=1)}


def write_idx(path, array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    with gzip.open(path, "wb") as file: file.write(header + array.tobytes())
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def place(tmp_path, monkeypatch):
    "Small files in the official format, under the names and addresses of the registry, and small parameters"
    random = np.random.default_rng(0)
    for name in SETS:
        folder, files = tmp_path / "mirror/data" / name, []
        folder.mkdir(parents=True)
        for file in data.registry[name].files:
            n = 28 if file.name.startswith("train") else 4
            shape = (n, 28, 28) if "images" in file.name else (n,)
            files.append(dataclasses.replace(file, md5=write_idx(folder / file.name,
                                                                 random.integers(0, 256, shape, np.uint8))))
        monkeypatch.setitem(data.registry, name,
                            dataclasses.replace(data.registry[name], val=8, files=tuple(files)))
    monkeypatch.setenv("LMD_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setattr(releasing, "sample", partial(sample, steps=2))       # the pictures of the cards
    params = yaml.safe_load((FOLDER / "params.yaml").read_text(encoding="utf-8"))
    for name in MODELS:
        params["train"][name] |= SMALL_TRAININGS
        params["train"][f"{name}-vae"] |= SMALL_VAE
    for name, small in SMALL_SETTINGS.items(): params["settings"][name] |= small
    params["settings"]["regret"] |= dict(steps=2, samples=2)
    params["settings"]["faces-256"] |= dict(steps=3, n=4, distances=["mse"])
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def kernel():
    "One that runs the pages of all tests"
    kernel = KernelManager(kernel_name="python3")
    yield kernel
    if kernel.has_kernel: kernel.shutdown_kernel(now=True)


def wanted(stage):
    "Whether a stage belongs to the small run: two models, three grayscale sets"
    kind, _, which = stage.partition("@")
    chosen = {"data": SETS, "train": MODELS, "train-vae": MODELS[:1], "score-regret-gray": MODELS[:1],
              "score-gray": [f"{m}-{s}" for m in MODELS for s in SETTINGS if m == "mnist" or s not in ALONE]}
    return which in chosen.get(kind, [])


def commands():
    "The commands of all stages by name, those of faces/ too"
    with Repo(str(FOLDER)) as repo:
        return {s.addressing.split(":")[-1]: s.cmd for s in repo.index.stages if s.cmd}


def run(command):
    args = shlex.split(command)[1:] + ["--device", "cpu"] * ("data fetch" not in command)
    got = CliRunner().invoke(main, args, catch_exceptions=False)
    assert got.exit_code == 0, (command, got.output)


def test_every_entry_and_every_command_is_one_that_lmd_knows():
    "Those, too, that only a machine with a GPU can run"
    for section in ("train", "settings"):
        for name in yaml.safe_load((FOLDER / "params.yaml").read_text(encoding="utf-8"))[section]:
            assert name in known_entries(section, FOLDER / "params.yaml")
            load_params(section, name, FOLDER / "params.yaml")
    script = (FOLDER / "day.sh").read_text(encoding="utf-8").replace("\\\n", "")      # lines that go on
    day = [line.strip() for line in script.splitlines() if line.strip().startswith("lmd ")]
    assert [line.split()[1] for line in day] == ["data", "train", "train", "score", "eval"]
    for command in [*commands().values(), *(line.replace(" $small", "") for line in day[:-1])]:
        program, *words = shlex.split(command.replace("hub:google/ncsnpp-ffhq-256", "checkpoints/faces"))
        context, group = click.Context(main), main
        while isinstance(group, click.Group):
            name, *words = words
            group = group.get_command(context, name)
        group.make_context(name, words)          # parses the options and runs nothing
    trained = load_params("train", "cifar10", FOLDER / "params.yaml")
    assert (trained.decay, trained.warmup, trained.lr, trained.ema) == ("constant", 5000, 2e-4, .9999)


@pytest.mark.slow
def test_faces_by_an_imported_model_to_figure_6(place, kernel):
    "The pipeline of faces/, with a small network of score_sde in place of the hub's"
    reference = read_npz(ROOT / "tests/score_sde/ncsnpp-ve-ffhq.npz")
    state = {key.removeprefix("state."): torch.from_numpy(value) for key, value in reference.items()
             if key.startswith("state.")}
    averages = [value for key, value in state.items() if key not in ("sigmas", "all_modules.0.W")]
    torch.save({"model": {f"module.{key}": value for key, value in state.items()}, "step": 1,
                "ema": {"shadow_params": averages}}, "faces.pth")
    config = yaml.safe_load(str(reference["config"]))
    import_checkpoint("faces.pth", config, "checkpoints/faces")
    random = np.random.default_rng(1)
    for name in ("celebahq-256", "imagenet-256"):
        (place / "pictures" / name).mkdir(parents=True)
        for i in range(4):
            pixels = random.integers(0, 256, (20, 16, 3), np.uint8)
            Image.fromarray(pixels).save(place / "pictures" / name / f"{i}.png")
    faces = [cmd for stage, cmd in commands().items() if "faces-256@" in stage]
    assert len(faces) == 6 and all("hub:google/ncsnpp-ffhq-256" in command for command in faces)
    for command in faces:
        if "board-4" not in command: run(command.replace("hub:google/ncsnpp-ffhq-256", "checkpoints/faces"))
    settings = {"checkerboard 8x8": "alternating-checkerboard-8", "center": "center"}     # two masks of three
    page = run_page("figure6", dict(column="mse", settings=settings, scores=str(place / "scores"),
                                    images=str(place / "images")),
                    place / "params.yaml", ROOT / "nbs/paper", place / "reports", kernel)
    table = pd.read_csv(page / "figure6.csv")
    assert table["mask"].tolist() == ["checkerboard 8x8", "center"]
    assert table["ROC-AUC"].between(0, 1).all()


@pytest.mark.slow
def test_two_models_from_official_files_to_table_1(place, kernel):
    chosen = [cmd for stage, cmd in commands().items() if wanted(stage)]
    assert len(chosen) == 3 + 2 + 1 + 1 + len(SETTINGS) + 1
    for command in chosen: run(command)
    pairs = [["mnist", "kmnist"], ["kmnist", "mnist"]]
    methods = ["Input complexity", "Likelihood regret", "DDPM-OOD", "DiffPath", "MSMA"]
    page = run_page("table1", dict(pairs=pairs, methods=methods, versions={}, columns=["ssim", "mse"],
                                   setting="paper", wanted=[], scores=str(place / "scores")),
                    place / "params.yaml", ROOT / "nbs/paper", place / "reports", kernel, "this-study")
    departures = pd.read_csv(page / "departures.csv").set_index("what")["here"]
    assert list(departures.index[:2]) == ["models", "sampler"] and "channel" not in departures["models"]
    assert departures["sampler"] == "euler-maruyama, 2 steps from t = 1"
    assert not {"KMNIST", "SVHN", "noise schedule", "test images"} & set(departures.index)
    cells = json.loads((page / "table1.ipynb").read_text(encoding="utf-8"))["cells"]
    assert not any("kmnist7k" in str(c) for c in cells if "parameters" not in c["metadata"].get("tags", []))
    table = pd.read_csv(page / "methods.csv")
    assert table["in-domain"].tolist()[:2] == ["mnist", "kmnist"]
    assert table["LMD"].iloc[:2].notna().all() and table[methods].iloc[0].notna().all()
