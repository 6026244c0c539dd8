"The repository as a whole: stages, parameters, sizes, chapters, README, checkpoints and committed scores fit each other."
import ast
import configparser
import json
import re
import shlex
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import click
import nbformat
import papermill
import pytest
import torch
import yaml
from dvc.repo import Repo
from packaging.requirements import Requirement
from safetensors.torch import load_file

from conftest import ROOT
from lmd.methods.regret import load_vae, posterior
from lmd.cli import main
from lmd.data import fetch, load, registry
from lmd.diffusion import checkpoint_fingerprint, load_denoiser
from lmd.methods.latents import load_latent
from lmd.methods.classifiers import load_classifier
from lmd.methods.repairing import load_repairer
from lmd.scoring import load_params, make_setting, trainings
from lmd.files import read_metadata
from lmd.scoring import from_entry

CHAPTERS = sorted((ROOT / "nbs").glob("[0-9]*.ipynb"))
CHECKPOINTS = sorted(p for p in (ROOT / "checkpoints").glob("*") if p.is_dir())
SCORES = sorted((ROOT / "scores").rglob("*.parquet"))
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())


def tool(*args, cwd=ROOT):
    "Run a program of this environment; what it printed"
    program = Path(sys.executable).with_name(args[0])
    got = subprocess.run([program if program.exists() else args[0], *args[1:]], cwd=cwd, capture_output=True, text=True)
    assert got.returncode == 0, got.stdout + got.stderr
    return got.stdout


# ---- pipeline

def test_nothing_is_left_to_run():
    assert "Running stage" not in tool("dvc", "repro", "--allow-missing", "--dry")


def stage_commands():
    "Every single command of every stage, with the stage's name"
    with Repo(ROOT) as repo:
        return [pytest.param(shlex.split(c), id=stage.addressing) for stage in repo.index.stages if stage.cmd for c in stage.cmd.split("&&")]


def check_lmd(args):
    command = main
    while isinstance(command, click.Group): command = command.commands[args.pop(0)]
    params = command.make_context(command.name, args).params      # wrong options fail here
    source = params.get("source", "phantoms")                     # lmd ct-study knows its own
    assert source in registry
    section = {"outlier-aware": "train-student"}.get(command.name, command.name)
    section, default = (section, source) if section in trainings else ("settings", None)
    assert (params.get("config") or params.get("setting") or default) in PARAMS[section]


def check_papermill(args):
    notebook = next(a for a in args if a.endswith(".ipynb"))
    given = {args[i + 1] for i, a in enumerate(args) if a == "-p"}
    assert given <= papermill.inspect_notebook(ROOT / notebook).keys()


@pytest.mark.parametrize("command", stage_commands())
def test_stage_command_exists(command):
    program, *args = command
    if program == "mkdir": return
    {"lmd": check_lmd, "papermill": check_papermill, "python": lambda a: compile(a[1], "stage", "exec")}[program](args)


def test_params():
    for section in ("settings", *trainings):
        for name in PARAMS[section]: load_params(section, name, ROOT / "params.yaml")


# ---- what is in git

def test_sizes():
    sizes = {f: (ROOT / f).stat().st_size for f in tool("git", "ls-files", "-z").split("\0") if f and (ROOT / f).exists()}
    assert {f: s for f, s in sizes.items() if s > 12e6} == {}
    assert sum(sizes.values()) <= 45e6


# kind in lmd.json: section of params.yaml, what the folder's name has after the entry's, what opens it, what makes images like the given ones of them
KINDS = {"denoiser": ("train", "", load_denoiser, lambda denoiser, x: denoiser(x, .5)),
         "vae": ("train-vae", "-vae", load_vae, lambda vae, x: [vae.mean_image(posterior(vae.encoder(x))[0])]),
         "repairer": ("train-repairer", "-repair", load_repairer, lambda repairer, x: [repairer(x)]),
         "classifier": ("train-student", "-student", load_classifier, lambda network, x: [x] if network(x)[1].isfinite().all() else []),
         "latent-diffusion": ("train-latent", "-latent", load_latent, lambda model, x: [model.decode(model.encode(x))])}


@pytest.mark.parametrize("folder", CHECKPOINTS, ids=lambda p: p.name)
def test_checkpoint(folder, tmp_path):
    about, card = json.loads((folder / "lmd.json").read_text()), (folder / "README.md").read_text()
    section, suffix, opened, images_of = KINDS[about.get("kind", "denoiser")]
    model, entry = opened(folder), load_params(section, folder.name.removesuffix(suffix), ROOT / "params.yaml")
    x = torch.zeros(2, about["channels"], about["size"], about["size"])
    assert all(v.isfinite().all() and v.shape == x.shape for v in images_of(model, x))
    weights = [v for file in folder.rglob("*.safetensors") for v in load_file(file).values()]
    assert weights and all(v.dtype == torch.float16 for v in weights if v.is_floating_point())
    assert from_entry(type(entry), about["training"]) == entry
    assert about["data_md5"] in card and about["data"] in card
    assert {m for m in re.findall(r"]\(([^)]+)\)", card) if not (folder / m).exists()} == set()
    if not registry[about["data"]].files:      # a set that is made here
        fetch(about["data"], root=tmp_path)
        assert about["data_md5"] == load(about["data"], "train", root=tmp_path).md5


@pytest.mark.parametrize("file", SCORES, ids=lambda p: str(p.relative_to(ROOT / "scores")))
def test_scores_are_those_of_this_checkpoint_and_setting(file):
    about, (model, source, setting) = read_metadata(file), file.relative_to(ROOT / "scores").with_suffix("").parts
    split = about["split"].split(":")       # not named in the path if it is the test set; val:flip is written val-flip
    assert (about["model"], "-".join([about["source"], *split]).removesuffix("-test")) == (model, source)
    assert about["weights"] == checkpoint_fingerprint(ROOT / "checkpoints" / model)
    assert make_setting(dict(about["setting"], method=about["method"])) == load_params("settings", setting, ROOT / "params.yaml")


# ---- chapters

def code(notebook): return [c for c in nbformat.read(notebook, 4).cells if c.cell_type == "code"]


def test_no_chapter_imports_a_later_one():
    names = [re.search(r"#\|\s*default_exp (\w+)", "\n".join(c.source for c in code(n)))[1] for n in CHAPTERS]
    assert sorted(f"{name}.py" for name in names) == sorted(p.name for p in (ROOT / "lmd").glob("[!_]*.py"))
    for i, notebook in enumerate(CHAPTERS):
        imported = {m for c in code(notebook) for m in re.findall(r"^\s*(?:from|import) lmd\.(\w+)", c.source, re.M)}
        assert imported - {"baselines", "relatives"} <= set(names[:i + 1]), notebook.name
        assert "relatives" not in imported or names[i] == "cli"
        assert "baselines" not in imported or names[i] not in names[:names.index("scoring") + 1], notebook.name


def test_baselines_import_no_chapter_after_scoring():
    names = [p.stem.split("_", 1)[1] for p in CHAPTERS]
    allowed = {*names[:names.index("scoring") + 1], "baselines"}
    for notebook in (ROOT / "nbs/baselines").glob("*.ipynb"):
        imported = {m for c in code(notebook) for m in re.findall(r"^\s*(?:from|import) lmd\.(\w+)", c.source, re.M)}
        assert imported <= allowed, notebook.name


def test_pictures_in_chapters_are_small():
    for notebook in sorted((ROOT / "nbs").rglob("*.ipynb")):
        for cell in code(notebook):
            pictures = [o["data"]["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]
            assert sum(len(p) * 3 / 4 for p in pictures) <= 60e3, (notebook.name, cell.id)


def test_readme_is_the_index():
    rendered = tool("jupyter", *"nbconvert --to markdown --stdout --log-level ERROR nbs/index.ipynb".split())
    rendered = re.sub(r"\]\(([a-z0-9_/]+\.ipynb)\)", r"](nbs/\1)", rendered).replace("../", "")
    assert rendered == (ROOT / "README.md").read_text()


def test_links_of_the_readme():
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text())
    assert {m for m in links if not m.startswith("http") and not (ROOT / m).exists()} == set()


# ---- dependencies

def test_every_import_is_required():
    config = configparser.ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini")
    required = {Requirement(r).name for r in config["DEFAULT"]["requirements"].split()}
    trees = [ast.parse(p.read_text()) for p in (ROOT / "lmd").glob("*.py")]
    nodes = [n for tree in trees for n in ast.walk(tree)]
    modules = {a.name.split(".")[0] for n in nodes if isinstance(n, ast.Import) for a in n.names}
    modules |= {n.module.split(".")[0] for n in nodes if isinstance(n, ast.ImportFrom) and n.level == 0}
    owners = {m: {d.lower() for d in packages_distributions()[m]} for m in modules - sys.stdlib_module_names - {"lmd"}}
    assert {m for m, packages in owners.items() if not packages & required} == set()


def test_lock_fits_the_requirements():
    locked = [Requirement(line) for line in (ROOT / "requirements.lock").read_text().splitlines() if line and line[0] not in "# "]
    versions = {r.name: next(iter(r.specifier)).version for r in locked if r.marker is None or r.marker.evaluate()}
    config = configparser.ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini")
    wanted = [Requirement(r) for key in ("requirements", "dev_requirements") for r in config["DEFAULT"][key].split()]
    assert {str(r) for r in wanted if r.name not in versions or versions[r.name] not in r.specifier} == set()
