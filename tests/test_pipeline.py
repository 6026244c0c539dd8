"The repository as a whole: stages, parameters, checkpoints, scores, pages and README fit each other."
import ast
import configparser
import json
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from copy import deepcopy
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import click
import nbformat
import pandas as pd
import papermill
import pytest
import torch
import yaml
from dvc.repo import Repo
from dvc.utils.serialize import load_yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from safetensors.torch import load_file

from conftest import ROOT
from lmd.checkpoints import CALIBRATIONS
from lmd.cli import main
from lmd.data import fetch, load, registry
from lmd.diffusion import checkpoint_fingerprint, load_denoiser
from lmd.files import read_metadata
from lmd.methods.classifiers import load_classifier
from lmd.methods.latents import load_latent
from lmd.methods.regret import load_vae, posterior
from lmd.methods.repairing import load_repairer
from lmd.outliers import parse_source, source_name
from lmd.settings import from_entry, load_params, make_setting
from lmd.study.plan import plan_command
from lmd.study.recipe_study import SETTINGS

CHECKPOINTS = sorted(p for p in (ROOT / "checkpoints").glob("*") if p.is_dir())
SCORES = sorted((ROOT / "scores").rglob("*.parquet"))
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
PAGES = list(PARAMS["pages"])
# by make bench and make trust, on whoever's machine
MEASURED = {f"scores/{place}" for place in ("mnist/benchmark", "mnist/benchmark-bf16", "mnist/million",
                                            "panel-seconds", "trust/trust")}


def tool(*args, cwd=ROOT):
    "Run a program of this environment; what it printed"
    program = Path(sys.executable).with_name(args[0])
    command = [program if program.exists() else args[0], *args[1:]]
    got = subprocess.run(command, cwd=cwd, capture_output=True, text=True, encoding="utf-8")
    assert got.returncode == 0, got.stdout + got.stderr
    return got.stdout


@cache
def tracked(): return [f for f in tool("git", "ls-files", "-z").split("\0") if f and (ROOT / f).exists()]


# ---- pipeline

@pytest.mark.slow
def test_nothing_is_left_to_run(monkeypatch):
    "As `dvc repro --allow-missing --dry` finds it, but a file of parameters is read once, not for each stage"
    once = cache(lambda path, kwargs: load_yaml(path, **dict(kwargs)))
    loaders = defaultdict(lambda: lambda path, fs=None, **kwargs: deepcopy(once(path, tuple(kwargs.items()))))
    monkeypatch.setattr("dvc.utils.serialize.LOADERS", loaders)
    with Repo(ROOT) as repo: left = repo.reproduce(allow_missing=True, dry=True)
    assert [stage.addressing for stage in left] == []


@cache
def stages():
    with Repo(ROOT) as repo: return [s for s in repo.index.stages if s.cmd]


def options(command):
    "What the options of a command of a stage mean; wrong ones fail here"
    program, *args = shlex.split(command)
    assert program == "lmd"
    group = main
    while isinstance(group, click.Group):
        name, *args = args
        group = group.get_command(click.Context(group), name)
        assert group, f"there is no command {name}"
    return group.make_context(name, list(args)).params


def test_size_of_the_pipeline():
    lines = (ROOT / "dvc.yaml").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 200 and max(map(len, lines)) <= 120
    lines = (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150 and max(map(len, lines)) <= 120
    assert all(s.desc for s in stages())


def test_commands_of_the_stages():
    for stage in stages():
        given = options(stage.cmd)
        for source in given.get("sources", ()): assert parse_source(source)[0] in registry, stage.addressing
        if config := given.get("config"): assert config in PARAMS["train"], stage.addressing
        if setting := given.get("setting"): assert setting in PARAMS["settings"], stage.addressing


def test_a_stage_depends_on_what_its_command_reads():
    for stage in stages():
        given, deps = options(stage.cmd), {d.def_path for d in stage.deps}
        named = [given[k] for k in ("source", "outside", "sources") if k in given]
        sets = {parse_source(s)[0] for value in named for s in ([value] if isinstance(value, str) else value)}
        assert {f"data/{s}" for s in sets} <= deps, stage.addressing
        if model := given.get("model"): assert f"{model}/lmd.json" in deps, stage.addressing
        read = {value for option, value in given.items() if option.endswith("setting") and value}
        if stage.cmd.startswith("lmd study recipes"): read |= set(SETTINGS)
        listed = {name for d in stage.deps for name in getattr(d, "params", None) or ()}
        assert {f"settings.{name}" for name in read} <= listed, stage.addressing
        if stage.cmd.startswith("lmd study page"): assert {"scores", "images", "checkpoints"} <= deps


def test_every_folder_of_scores_is_the_output_of_one_stage():
    outputs = [o.def_path for s in stages() for o in s.outs]
    folders = {str(Path(f).parent) for f in tracked() if f.startswith(("scores/", "images/"))}
    assert folders - MEASURED == {o for o in outputs if o.startswith(("scores/", "images/"))}
    assert len(outputs) == len(set(outputs))


def test_folders_of_scores_hold_what_their_stage_names():
    "With persist, a set that has left a list would stay in the folder"
    for stage in stages():
        given = options(stage.cmd)
        if stage.addressing.startswith("score"):
            there = {p.stem for p in (ROOT / given["out"]).glob("*")}
            assert there == {source_name(*parse_source(s)) for s in given["sources"]}, stage.addressing


def test_a_plan_counts_the_images_that_were_scored():
    for stage in stages():
        if stage.addressing.startswith("score"):
            counted = plan_command(stage.cmd, ROOT / "params.yaml")["images"]
            files = (ROOT / options(stage.cmd)["out"]).glob("*.parquet")
            assert counted == sum(read_metadata(f)["n"] for f in files), stage.addressing


def test_params():
    for section in ("settings", "train"):
        for name in PARAMS[section]: load_params(section, name, ROOT / "params.yaml")


def test_pages():
    assert {p.stem for p in (ROOT / "nbs/paper").glob("*.ipynb")} == set(PAGES)
    for page in PAGES:
        known = papermill.inspect_notebook(ROOT / f"nbs/paper/{page}.ipynb")
        assert set(PARAMS["pages"].get(page) or {}) <= set(known) and "out" in known, page
        executed = nbformat.read(ROOT / f"reports/{page}/{page}.ipynb", 4)
        cells = nbformat.read(ROOT / f"nbs/paper/{page}.ipynb", 4).cells
        sources = [c.source for c in executed.cells if c.get("id") != "injected-parameters"]
        assert sources == [c.source for c in cells], f"{page} was run from another notebook: make report"
        assert any(c.get("outputs") for c in executed.cells), page
        assert not re.search(r"\d{4}-\d\d-\d\dT|/tmp/", json.dumps(executed)), page
    written = {f.split("/")[1] for f in tracked() if f.startswith("reports/")}
    assert written == set(PAGES)


# ---- what is in git

def test_sizes():
    sizes = {f: (ROOT / f).stat().st_size for f in tracked()}
    assert {f: s for f, s in sizes.items() if s > 16e6} == {}
    assert sum(sizes.values()) <= 150e6
    assert sizes["README.md"] <= 10_240


def test_no_line_of_code_is_wide():
    code = [f for f in tracked() if f.endswith((".py", ".sh")) or f in ("Makefile", ".ci/run")]
    wide = [(f, i) for f in code if not f.endswith(("_modidx.py", "setup.py"))
            for i, line in enumerate((ROOT / f).read_text(encoding="utf-8").splitlines(), 1)
            if len(line) > 110 and not line.startswith(("__all__", "           '"))]     # nbdev's lists
    assert wide == []


# kind in lmd.json: what opens the folder, what makes images like the given ones of it
KINDS = {"denoiser": (load_denoiser, lambda denoiser, x: denoiser(x, .5)),
         "vae": (load_vae, lambda vae, x: [vae.mean_image(posterior(vae.encoder(x))[0])]),
         "repairer": (load_repairer, lambda repairer, x: [repairer(x)]),
         "classifier": (load_classifier, lambda network, x: [x] if network(x)[1].isfinite().all() else []),
         "latent-diffusion": (load_latent, lambda model, x: [model.decode(model.encode(x))])}


@pytest.mark.parametrize("folder", CHECKPOINTS, ids=lambda p: p.name)
def test_checkpoint(folder, tmp_path):
    about = json.loads((folder / "lmd.json").read_text(encoding="utf-8"))
    card = (folder / "README.md").read_text(encoding="utf-8")
    opened, images_of = KINDS[about.get("kind", "denoiser")]
    model, entry = opened(folder), load_params("train", folder.name, ROOT / "params.yaml")
    x = torch.zeros(2, about["channels"], about["size"], about["size"])
    assert all(v.isfinite().all() and v.shape == x.shape for v in images_of(model, x))
    files = [file for file in folder.rglob("*.safetensors") if file.stem not in CALIBRATIONS]
    weights = [v for file in files for v in load_file(file).values()]
    assert weights and all(v.dtype == torch.float16 for v in weights if v.is_floating_point())
    assert from_entry(type(entry), about["training"]) == entry
    assert about["data_md5"] in card and about["data"] in card
    assert {m for m in re.findall(r"]\(([^)]+)\)", card) if not (folder / m).exists()} == set()
    if not registry[about["data"]].files:      # a set that is made here
        fetch(about["data"], root=tmp_path)
        assert about["data_md5"] == load(about["data"], "train", root=tmp_path).md5


@pytest.mark.parametrize("folder", sorted({f.parent for f in SCORES}), ids=lambda p: "-".join(p.parts[-2:]))
def test_scores_are_those_of_this_checkpoint_and_setting(folder):
    model, setting = folder.parts[-2:]
    weights = checkpoint_fingerprint(ROOT / "checkpoints" / model)
    mask = setting in PARAMS["grids"]["masks"]                  # a folder that is named for its mask
    entry = load_params("settings", "masks" if mask else setting, ROOT / "params.yaml",
                        changes=[f"mask={setting}"] if mask else [])
    for file in folder.glob("*.parquet"):
        about = read_metadata(file)
        assert source_name(about["source"], about["split"]) == file.stem
        assert (about["model"], about["weights"]) == (model, weights)
        assert make_setting(dict(about["setting"], method=about["method"])) == entry


# ---- README

def test_readme_is_the_index():
    assert tool("python", "scripts/readme.py", "--print") == (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_says_on_which_panels_there_is_no_lmd():
    panels = pd.read_csv(ROOT / "reports/detector/panels.csv").query("detector == 'default panel'")
    alone = {row.model for row in panels.itertuples() if not re.search(r"\b(lmd|fast) ", row.groups)}
    assert alone == {m for m in panels["model"] if m.startswith("cifar")}, "what README says of CIFAR"
    assert "on CIFAR pretrained features alone" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_links_lead_somewhere():
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        links = re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text(encoding="utf-8"))
        assert {m for m in links if not m.startswith("http") and not (ROOT / m).exists()} == set(), name


def test_links_of_the_notebooks():
    for notebook in [ROOT / f for f in tracked() if f.endswith(".ipynb")]:
        texts = [c.source for c in nbformat.read(notebook, 4).cells if c.cell_type == "markdown"]
        links = {m for text in texts for m in re.findall(r"\]\(([^)#\s]+)\)", text)}
        broken = {m for m in links if not re.match(r"\w+:", m) and not (notebook.parent / m).exists()}
        assert broken == set(), notebook.relative_to(ROOT)

# ---- panels

def test_released_panels_are_those_of_the_page():
    "The page chooses panels, and so does the stage that releases them"
    known = pd.read_csv(ROOT / "reports/detector/panels.csv").set_index(["network", "detector"])
    command = main.get_command(None, "study").get_command(None, "calibrate")
    option = next(option for option in command.params if option.name == "kinds")
    given = papermill.inspect_notebook(ROOT / "nbs/paper/detector.ipynb")["kinds"]["default"]
    kinds = ast.literal_eval(given.partition("#")[0])
    assert set(option.default) == {kind for kind in kinds if kind in known}
    shown_only = ["panel without labels", "panel of all"]
    for (network, detector), row in known.drop(index=shown_only, level="detector").iterrows():
        file = ROOT / "checkpoints" / network / f"{detector.replace(' ', '-')}.json"
        released = json.loads(file.read_text(encoding="utf-8"))["combination"]
        assert [released[k] for k in ("combine", "each")] == ["fisher", "member"], file
        members = {q.partition(":")[0] for q in released["quantities"]}
        assert members == {group.split()[0] for group in row["groups"].split(", ")}, file


def test_each_detector_has_its_ten_pairs():
    pairs = pd.read_csv(ROOT / "reports/detector/pairs.csv")
    named = pd.read_csv(ROOT / "reports/detector/averages.csv").set_index("detector")["all pairs"]
    for detector, lines in pairs.groupby("detector"):
        assert len(lines) == 10 and not lines[["in-domain", "out-of-domain"]].duplicated().any()
        assert lines["ROC-AUC"].between(lines["low"], lines["high"]).all()
        assert named[detector] == pytest.approx(lines["ROC-AUC"].mean(), abs=1e-5)


# ---- dependencies

def requirements(*keys):
    config = configparser.ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return [Requirement(r) for key in keys for r in config["DEFAULT"][key].split()]


def imported(paths):
    "Packages that modules import from outside, by the name of the import"
    nodes = [n for p in paths for n in ast.walk(ast.parse(p.read_text(encoding="utf-8")))]
    modules = {a.name.split(".")[0] for n in nodes if isinstance(n, ast.Import) for a in n.names}
    modules |= {n.module.split(".")[0] for n in nodes if isinstance(n, ast.ImportFrom) and n.level == 0}
    outside, owners = modules - sys.stdlib_module_names - {"lmd"}, packages_distributions()
    return {m: {d.lower() for d in owners[m]} for m in outside}


def test_every_import_is_required():
    library, study = ({r.name for r in requirements(*keys)} for keys in
                      (["requirements"], ["requirements", "study_requirements"]))
    own = [*(ROOT / "lmd").glob("*.py"), *(ROOT / "lmd/methods").glob("*.py")]
    assert {m for m, packages in imported(own).items() if not packages & library} == set()
    owners = imported((ROOT / "lmd/study").glob("*.py"))
    assert {m for m, packages in owners.items() if not packages & study} == set()


def test_lock_fits_the_requirements():
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    locked = [Requirement(line.rstrip(" \\")) for line in lines if line and line[0] not in "# "]
    here = [r for r in locked if r.marker is None or r.marker.evaluate()]
    versions = {canonicalize_name(r.name): next(iter(r.specifier)).version for r in here}
    wanted = requirements("requirements", "study_requirements", "dev_requirements")
    names = {r: canonicalize_name(r.name) for r in wanted}
    assert {str(r) for r, n in names.items() if n not in versions or versions[n] not in r.specifier} == set()


def test_lock_for_the_cpu_is_the_lock_without_cuda():
    command = [sys.executable, str(ROOT / "scripts/cpu_lock.py"), "--print"]
    made = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True).stdout
    assert made == (ROOT / "requirements-cpu.lock").read_text(encoding="utf-8")
