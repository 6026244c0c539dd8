"Models that others published: imported and scored by the command line, and opened by name without a network."
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from conftest import message, ROOT
from lmd.diffusion import Denoiser, UNet, VPLinear, load_denoiser, make_unet, save_checkpoint
from lmd.files import read_metadata, read_npz
from lmd.unet import UNet2D, as_diffusers

REFERENCES = sorted((Path(__file__).parent / "score_sde").glob("*.npz"))
SETTING = dict(steps=2, t0=1.0, attempts=2, dtype="float32", distances=["ssim", "mse"])
COMMIT = "c0ffee".ljust(40, "0")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    "Four pictures, settings for both samplers of the paper, and the reference networks in score_sde's format"
    shelf = tmp_path_factory.mktemp("shelf")
    settings = {"euler": SETTING | dict(sampler="euler-maruyama"),
                "corrected": SETTING | dict(sampler="predictor-corrector")}
    (shelf / "params.yaml").write_text(yaml.safe_dump({"settings": settings}), encoding="utf-8")
    (shelf / "pictures").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    for i, picture in enumerate(pixels): Image.fromarray(picture).save(shelf / f"pictures/{i}.png")
    for path in REFERENCES:
        reference = read_npz(path)
        (shelf / f"{path.stem}.json").write_text(str(reference["config"]), encoding="utf-8")
        state = {key.removeprefix("state."): torch.from_numpy(array) for key, array in reference.items()
                 if key.startswith("state.")}
        fixed = {"sigmas", "all_modules.0.W"}
        saved = {"model": {f"module.{key}": value for key, value in state.items()}, "step": 1,
                 "ema": {"shadow_params": [value for key, value in state.items() if key not in fixed]}}
        torch.save(saved, shelf / f"{path.stem}.pth")
    return shelf


@pytest.mark.parametrize("name", [path.stem for path in REFERENCES])
def test_a_reference_is_imported_and_scores_four_pictures(lmd, shelf, monkeypatch, name):
    monkeypatch.chdir(shelf)
    got = lmd("import", f"{name}.pth", "--config", f"{name}.json", "--out", f"checkpoints/{name}")
    assert got.output.startswith(f"checkpoints/{name}: ")
    assert load_denoiser(f"checkpoints/{name}").prediction == ("score" if "-ve-" in name else "eps")
    setting = "corrected" if "-ve-" in name else "euler"
    lmd("score", "./pictures", "--model", f"checkpoints/{name}", "--setting", setting, "--device", "cpu",
        "--out", f"{name}.csv")
    scores = pd.read_csv(f"{name}.csv")
    assert len(scores) == 4 and np.isfinite(scores[["ssim", "mse"]]).all().all()
    assert read_metadata(f"{name}.parquet")["nfe"] == (6 if "-ve-" in name else 4)


def test_what_is_no_model_of_score_sde_is_refused(lmd, shelf, monkeypatch):
    monkeypatch.chdir(shelf)
    torch.save({"weight": torch.zeros(2)}, "other.pth")
    for args, what in (("other.pth", "--config", "ddpm-vp.json"), "no model with ema.shadow_params"), \
                      (("ddpm-vp.pth", "--config", "ddpmpp-subvp.json"), "do not fit the configuration"), \
                      (("ddpm-vp.pth", "--config", "params.yaml"), "is not valid json"), \
                      (("none.pth", "--config", "ddpm-vp.json"), "there is no file of weights"):
        assert what in message(lmd("import", *args, "--out", "checkpoints/refused", code=1))
    assert not Path("checkpoints/refused").exists()


@pytest.mark.slow
def test_a_model_of_the_hub_from_the_cache_without_a_network(lmd, shelf, monkeypatch):
    "What the cache of the hub has is used by its name; what it has not is one sentence"
    from diffusers import DDPMPipeline, DDPMScheduler
    model = shelf / f"hub/models--someone--tiny/snapshots/{COMMIT}"
    unet = as_diffusers(make_unet(16, 3, factor=1, width=(16, 16)).unet)
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(model)
    refs = model.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text(COMMIT)

    cache = dict(HF_HUB_CACHE=str(shelf / "hub"), HF_HUB_OFFLINE="1")
    score = "score", "./pictures", "--setting", "euler", "--device", "cpu", "--out", "hub.csv", "--model"
    command = [str(Path(sys.executable).with_name("lmd")), *score, "hub:someone/tiny"]
    done = subprocess.run(command, cwd=shelf, text=True, capture_output=True, env=os.environ | cache)
    assert done.returncode == 0, done.stderr
    assert len(pd.read_csv(shelf / "hub.csv")) == 4
    assert read_metadata(shelf / "hub.parquet")["model"] == f"hub:someone/tiny@{COMMIT}"

    for name, value in cache.items(): monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    monkeypatch.chdir(shelf)
    assert "the hub cannot be reached" in message(lmd(*score, "hub:google/ddpm-cat-256", code=1))


RELEASED = sorted(path.parent.parent for path in (ROOT / "checkpoints").glob("*/unet/config.json")
                  if json.loads(path.read_text(encoding="utf-8"))["_class_name"] == "UNet2DModel")

assert RELEASED, "no released network is found: the test below would test nothing"


@pytest.mark.parametrize("folder", RELEASED, ids=lambda folder: folder.name)
def test_a_released_network_is_that_of_diffusers_and_is_written_as_it_was(folder, tmp_path):
    from diffusers import UNet2DModel
    denoiser, theirs = load_denoiser(folder), UNet2DModel.from_pretrained(folder / "unet").eval()
    ours = denoiser.network.unet
    assert isinstance(ours, UNet2D)
    x = torch.randn(2, ours.config.in_channels, *[ours.config.sample_size] * 2)
    with torch.no_grad():
        for time in (torch.tensor([3.0, 999.0]), torch.tensor(412.3).expand(2)):
            expected = theirs(x, time).sample
            assert (ours(x, time) - expected).norm() < 2e-6 * expected.norm()
    save_checkpoint(denoiser, tmp_path / "again", {"name": "vp-linear"}, "# again\n")
    for path in (folder / "unet").iterdir():
        assert (tmp_path / "again/unet" / path.name).read_bytes() == path.read_bytes()


def test_a_released_checkpoint_is_opened_without_diffusers_and_without_the_compiler():
    code = ("import sys, torch; from lmd.diffusion import load_denoiser\n"
            "denoiser, x = load_denoiser('checkpoints/digits'), torch.zeros(1, 1, 16, 16)\n"
            "with torch.inference_mode(): denoiser(x, .5)\n"
            "print(*[name for name in ('diffusers', 'torch._dynamo') if name in sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          check=True).stdout.split() == []


def test_blocks_that_only_diffusers_has_are_read_by_diffusers(tmp_path):
    from diffusers import DDPMScheduler, UNet2DModel
    blocks = dict(down_block_types=["SkipDownBlock2D", "AttnSkipDownBlock2D"], block_out_channels=[32, 64],
                  up_block_types=["AttnSkipUpBlock2D", "SkipUpBlock2D"], layers_per_block=1)
    theirs = UNet2DModel(sample_size=16, in_channels=3, out_channels=3, **blocks).eval()
    theirs.save_pretrained(tmp_path / "unet")
    DDPMScheduler().save_pretrained(tmp_path / "scheduler")
    denoiser, x = load_denoiser(tmp_path), torch.randn(2, 3, 16, 16)
    assert isinstance(denoiser.network.unet, UNet2DModel)
    with torch.no_grad():
        assert torch.equal(denoiser(x, 0.5)[1], theirs(x, torch.full((2,), 499.0)).sample)
    save_checkpoint(Denoiser(UNet(theirs), VPLinear(), 16, 3), tmp_path / "own", {"name": "vp-linear"}, "#\n")
    assert isinstance(load_denoiser(tmp_path / "own").network.unet, UNet2DModel)
