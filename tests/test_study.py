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
import torch
from diffusers import PNDMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from torchvision.models.vision_transformer import VisionTransformer

from conftest import QUICKLY, message
from lmd.methods.classifiers import load_classifier
from lmd.methods.pretrained import class_embeddings, open_vit
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


def write_text_encoder(folder, width=32):
    "A small text encoder of CLIP's with random weights, in the layout of Stable Diffusion's folder"
    characters = [*"abcdefghijklmnopqrstuvwxyz", *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz")]
    vocabulary = {c: i for i, c in enumerate([*characters, "<|startoftext|>", "<|endoftext|>"])}
    config = dict(vocab_size=len(vocabulary), hidden_size=width, intermediate_size=width, num_hidden_layers=1,
                  num_attention_heads=2, max_position_embeddings=16, eos_token_id=len(vocabulary) - 1)
    layer = {f"{name}.{end}": (width, width) if end == "weight" and "norm" not in name else (width,)
             for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj",
                          "mlp.fc1", "mlp.fc2", "layer_norm1", "layer_norm2") for end in ("weight", "bias")}
    shapes = {"embeddings.token_embedding.weight": (len(vocabulary), width),
              "embeddings.position_embedding.weight": (16, width), "final_layer_norm.weight": (width,),
              "final_layer_norm.bias": (width,), **{f"encoder.layers.0.{k}": v for k, v in layer.items()}}
    generator = torch.Generator().manual_seed(0)
    for name in ("text_encoder", "tokenizer"): (folder / name).mkdir(parents=True)
    tensors = {f"text_model.{k}": torch.randn(shape, generator=generator) for k, shape in shapes.items()}
    save_file(tensors, folder / "text_encoder/model.safetensors", metadata={"format": "pt"})
    (folder / "text_encoder/config.json").write_text(json.dumps(config))
    (folder / "tokenizer/vocab.json").write_text(json.dumps(vocabulary))
    (folder / "tokenizer/merges.txt").write_text("#version: 0.2\n")


@pytest.fixture(scope="module")
def stable(tmp_path_factory):
    "A tiny folder in Stable Diffusion's layout, made by diffusers, with a ViT of torchvision's beside it"
    folder = tmp_path_factory.mktemp("stable")
    torch.manual_seed(0)
    UNet2DConditionModel(sample_size=4, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4,
        cross_attention_dim=32, attention_head_dim=2, down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",)).save_pretrained(folder / "unet")
    PNDMScheduler(beta_schedule="scaled_linear", skip_prk_steps=True).save_pretrained(folder / "scheduler")
    write_text_encoder(folder)
    vit = VisionTransformer(16, 8, 1, 1, 32, 64, num_classes=3)
    save_file(vit.state_dict(), folder / "vit.safetensors")
    return folder


def test_outlier_aware_with_networks_of_others(lmd, stable):
    variants = "--variant", "none", "--variant", "all", "--seed", 1
    study = ("study", "outlier-aware", "digits", "--outside", "letters", *variants, "-n", 30,
             "--device", "cpu", "--run", "runs/others", "--embeddings", stable)
    before = sorted(stable.rglob("*"))
    lmd(*study, "--teacher", stable / "vit.safetensors", "--latent", stable, "--out", "study/others")
    assert sorted(stable.rglob("*")) == before                          # what is of others stays as it is
    assert set(pd.read_csv("study/others/cost.csv")["part"]) == {"teacher", "diffusion", "vos", "none", "all"}
    rows = pd.read_csv("study/others/table.csv")
    assert set(rows.loc[rows["variant"] == "teacher", "network"]) == {"vit.safetensors"}
    told = message(lmd(*study, "--teacher", "resnet", "--out", "study/none", code=1))
    assert "no network of that name" in told


def test_text_encoder_is_that_of_transformers(stable):
    transformers = pytest.importorskip("transformers", reason="the package transformers is not installed")
    theirs, own = (f"{stable}/{name}" for name in ("text_encoder", "tokenizer"))
    tokenizer = transformers.CLIPTokenizer(f"{own}/vocab.json", f"{own}/merges.txt")
    numbers = tokenizer("ship", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        known = transformers.CLIPTextModel.from_pretrained(theirs)(input_ids=numbers).pooler_output
    torch.testing.assert_close(class_embeddings(stable, ["ship"]), known, rtol=1e-4, atol=1e-4)


def test_vit_is_that_of_timm(tmp_path):
    timm = pytest.importorskip("timm", reason="the package timm is not installed")
    sizes = dict(img_size=32, patch_size=8, depth=2, num_classes=5)
    theirs = timm.create_model("vit_tiny_patch16_224", **sizes).eval()
    save_file({k: v.contiguous() for k, v in theirs.state_dict().items()}, tmp_path / "vit.safetensors")
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.inference_mode():
        known = theirs.forward_head(theirs.forward_features(x), pre_logits=True)
        torch.testing.assert_close(open_vit(tmp_path / "vit.safetensors", 32)(x), known, rtol=1e-4, atol=1e-5)


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
    "A ROC-AUC, a share or a time in a page's text would stay when its file changes; settings may stand there"
    words = re.compile(r"`[^`]*`|\$[^$]*\$|\]\([^)]*\)")                 # code, formulae, addresses
    results = re.compile(r"(?<![\d.])0?\.\d{2,3}(?!\d)|\d\.\d+ %|\d (?:seconds|minutes|hours)\b")
    cells = [c for c in nbformat.read(page, 4).cells if c.cell_type == "markdown"]
    assert [found for c in cells for found in results.findall(words.sub("", c.source))] == []


def test_missing_packages_are_named(lmd, monkeypatch):
    monkeypatch.setitem(sys.modules, "papermill", None)
    monkeypatch.delitem(sys.modules, "lmd.study.pages", raising=False)
    got = message(lmd("study", "page", "table1", code=1))
    assert "needs the package papermill" in got and "lmd[study]" in got
