"""Generated inputs: every option of every command, and every function that a user calls.

A value is marked where nothing but a refusal is right. All else may be refused, or give sane results."""
import os
import stat
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch

from lmd.aggregation import aggregate, aggregate_scores
from lmd.calibration import open_calibrated
from lmd.conformal import conformal_p_values, flagged_rank
from lmd.cli import main
from lmd.data import load, random_indices, to_model
from lmd.detector import LMD
from lmd.diffusion import load_denoiser
from lmd.distance import distances_from_names
from lmd.estimator import OutOfDomain
from lmd.evaluation import auc_interval, evaluate, roc_auc
from lmd.files import read_metadata, read_npz
from lmd.inpainting import Inpaint
from lmd.masking import mask_from_name
from lmd.pictures import read_picture
from lmd.sampling import time_grid
from lmd.settings import Setting, load_params, make_setting

from .world import Result, Trial, call, command, judge, kept, sane_csv, sane_scores

BAD, ANY = True, False

# ---- values: (value, whether it must be refused)
WHOLE = [("-1", BAD), ("0", BAD), ("1", ANY), ("2", ANY), ("3", ANY), ("nan", BAD), ("", BAD), ("ten", BAD),
    ("1.5", BAD), ("1e3", BAD),
         ("99999999999999999999999", ANY), ("0x10", BAD), (" 7", ANY), ("-0", BAD), ("None", BAD)]
NUMBER = [("nan", BAD), ("inf", BAD), ("-inf", BAD), ("-1", BAD), ("0", ANY), ("1", ANY), ("2", ANY),
    (".05", ANY), (".5", ANY), ("1e-300", ANY),
          ("1e300", ANY), ("", BAD), ("x", BAD), ("0,05", BAD), ("5%", BAD)]
TEXT = [("", BAD), (" ", BAD), ("typo", BAD), ("DIGITS", BAD), ("digits ", BAD), (":", BAD), ("::", BAD),
    ("digits:", ANY), ("digits::", ANY),
        ("digits:val:flip", ANY), ("digits:val:flip:x", ANY), ("digits:trian", BAD), ("None", BAD),
        ("0", BAD), ("-", ANY), ("[]", BAD),
        ("{}", BAD), ("%s", BAD), ("ü", BAD), ("\u202e", BAD), ("x"*5000, BAD), ("a\nb", BAD),
        ("../typo", BAD), ("quick", ANY),
        ("other", ANY), ("val", ANY), ("test", ANY), ("train", ANY), ("mse", ANY), ("ssim", ANY),
        ("mse/fill", ANY), ("lpips", ANY),
        ("median", ANY), ("mean", ANY), ("lmd", ANY), ("likelihood", ANY), ("image", BAD), ("attempt", BAD)]
PATHS = [("", BAD), (" ", ANY), (".", ANY), ("missing", ANY), ("missing/x", ANY), ("letter.txt", ANY),
    ("mine", ANY), ("mine/new", ANY),
         ("empty", ANY), ("link", ANY), ("linked", ANY), ("dangling", ANY), ("fifo", ANY), ("null", ANY),
         ("letter.txt/x", BAD), ("ü/ñ", ANY),
         ("x"*300, BAD), ("a b", ANY), ("a\nb", ANY), ("%s", ANY), ("{}", ANY), ("*", ANY),
         ("~nobody/x", ANY), ("model", ANY),
         ("model/lmd.json", ANY), ("val.parquet", ANY), ("inside.parquet", ANY), ("pictures", ANY),
         ("./pictures", ANY), ("calibration", ANY),
         ("calibration.json", ANY), ("params.yaml", ANY), ("data", ANY), ("a/../b", ANY),
         ("./pictures/00.png", ANY)]
FOLDERS = {"out", "run_folder", "params", "root", "calibration", "maps", "report", "models", "mirror",
    "model", "scores", "in_domain",
           "out_of_domain", "work", "student", "latent", "reports", "notebooks"}

READ_ONLY = {"root", "models", "mirror", "params", "work",
    "run_folder"}      # nothing may be needed of what is there

BASE = { # a good command line of each command: parameter -> values
    "train": dict(source="digits", config="tiny", out="made/model", device="cpu"),
    "score": dict(sources="./pictures", model="model", setting="quick", out="made.parquet", device="cpu"),
    "calibrate": dict(scores="val.parquet", out="made"),
    "detect": dict(source="./pictures", model="model", calibration="calibration", device="cpu"),
    "eval": dict(in_domain="inside.parquet", out_of_domain="pictures.parquet"),
    "verify": dict(scores="inside.parquet", models=".", n="4", device="cpu"),
    "reconstruct": dict(sources="digits", model="model", setting="quick", out="made.npz", device="cpu"),
    "data list": {}, "data fetch": dict(names="digits"), "weights": {}}
LONG = {"study bench", "study million", "study page", "study outlier-aware", "weights", "weights fetch",
    "model fetch"}
STUDY = dict(model="missing-model", out="made", source="digits", outside="letters", n="2", setting="quick")


def commands(group=main, path=()):
    "Every command by its words"
    for name in group.list_commands(click.Context(group)):
        made = group.get_command(click.Context(group), name)
        if isinstance(made, click.Group): yield from commands(made, (*path, name))
        else: yield " ".join((*path, name)), made


def pool(parameter):
    "The values that a parameter is tried with"
    kind = parameter.type
    if isinstance(kind, click.Choice): return [(c, ANY) for c in kind.choices] + [("", BAD), ("typo", BAD),
        ("ü", BAD)]
    if getattr(parameter, "is_flag", False): return [(None, ANY)]
    if isinstance(kind, click.IntRange): return WHOLE
    if isinstance(kind, click.types.IntParamType): return [(v, v in ("nan", "", "ten")) for v, _ in WHOLE]
    if isinstance(kind, click.types.FloatParamType): return NUMBER
    if parameter.name in READ_ONLY: return [(v, ANY) for v, _ in PATHS]
    return PATHS if parameter.name in FOLDERS else TEXT + [(v, ANY) for v, _ in PATHS[3:20]]


def command_lines():
    "(words, command, parameter, value, whether it must be refused) for every option, in a fixed order"
    for words, made in commands():
        for parameter in made.params:
            for value, bad in pool(parameter):          # minutes of work, or a download, are no trial
                if bad or words not in LONG: yield words, made, parameter, value, bad


def arguments(words, made, parameter, value):
    "A good command line with one value changed"
    base = dict(BASE.get(words, STUDY))
    known = {p.name for p in made.params}
    given = {k: v for k, v in base.items() if k in known} | {parameter.name: value}
    options, plain = [], []
    for p in made.params:
        if p.name not in given: continue
        if isinstance(p, click.Argument): plain.append(given[p.name])
        elif p.is_flag: options.append(max(p.opts, key=len))
        else: options += [max(p.opts, key=len), given[p.name]]
    return [*words.split(), *options, "--", *plain]


def traps():
    "What else lies in the folder: links, a pipe, a device"
    os.symlink("letter.txt", "link")
    os.symlink("mine", "linked")
    os.symlink("nowhere", "dangling")
    os.mkfifo("fifo")
    if os.geteuid() == 0: os.mknod("null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    else: os.mkfifo("null")


def sprung(named=None):
    "True, or what has happened to the user's files, links and devices"
    if (found := kept(named)) is not True: return found
    for name in ("link", "linked", "dangling"):
        if not os.path.islink(name): return f"the link {name} was replaced"
    for name in ("fifo", "null"):
        if not os.path.lexists(name) or stat.S_ISREG(os.lstat(name).st_mode): return f"{name} was replaced"
    for name in ("model/lmd.json", "val.parquet", "inside.parquet", "params.yaml", "pictures/00.png",
        "data/digits/test.npy"):
        if not Path(name).exists(): return f"{name} is gone"
    return True


def sane(words, got, bad):
    "Whether a command that said that all went well has done well"
    if bad: return "it was not refused"
    if words == "score":
        made = [p for p in Path().rglob("*.parquet") if p.name not in ("val.parquet", "inside.parquet",
            "pictures.parquet", "mapped.parquet")
                and "runs" not in p.parts]
        return all(sane_scores(p) is True for p in made) or "scores that are none"
    if words == "detect": return sane_csv(got.stdout)
    if words == "eval": return "nan" not in got.stdout.lower() or "numbers that are none"
    if words == "train":
        found = load_denoiser(next(p.parent for p in Path().rglob("lmd.json") if p.parent.name != "model"
            or p.parent != Path("model")))
        return all(p.isfinite().all() for p in found.parameters()) or "weights that are none"
    return True


def generated_line(line):
    words, made, parameter, value, bad = line
    def run():
        traps()
        before = {p: Path(p).read_bytes() for p in ("val.parquet", "inside.parquet", "model/lmd.json",
            "params.yaml")}
        args = arguments(words, made, parameter, value)
        stdin = "pictures/00.png\n" if value == "-" else None
        got = command(*args, stdin=stdin)
        if (found := sprung(value)) is not True: return "lost", f"{args}: {found}"
        outcome = judge(got, lambda: sane(words, got, bad))
        changed = [p for p, data in before.items() if Path(p).read_bytes() != data]
        if changed and parameter.name not in ("out", "report"): return "lost", f"{args}: {changed} changed"
        return (outcome, "") if isinstance(outcome, str) else (outcome[0], f"{args}: {outcome[1]}")
    return run


def real_line(line):
    "The same in a process that a shell would start"
    words, made, parameter, value, bad = line
    def run():
        traps()
        args = arguments(words, made, parameter, value)
        try: done = subprocess.run([sys.executable, "-m", "lmd", *args], capture_output=True,
            stdin=subprocess.DEVNULL, timeout=200)
        except subprocess.TimeoutExpired: return "hang"
        except ValueError: return "refused", "no such argument can be given"
        out, err = (text.decode("utf-8", "backslashreplace") for text in (done.stdout, done.stderr))
        if (found := sprung(value)) is not True: return "lost", f"{args}: {found}"
        got = Result(done.returncode, out, err, RuntimeError(err[-200:]) if "Traceback" in err else None)
        outcome = judge(got, lambda: sane(words, got, bad))
        return (outcome, "") if isinstance(outcome, str) else (outcome[0], f"{args}: {outcome[1]}")
    return run


# ---- calls from Python

def x(n=3, size=16, **k): return torch.linspace(-1, 1, n*size*size).reshape(n, 1, size, size)

TENSORS = { # what: (images for the network of the world, whether they must be refused)
    "good": (lambda: x(), ANY), "float64": (lambda: x().double(), ANY), "half": (lambda: x().half(), ANY),
    "meta": (lambda: x().to("meta"), BAD),
    "sparse": (lambda: x().to_sparse(), BAD), "none": (lambda: None, BAD), "empty": (lambda: x()[:0], BAD),
    "one dimension less": (lambda: x()[0], BAD),
    "another size": (lambda: x(3, 8), BAD), "three channels": (lambda: x().expand(-1, 3, -1, -1), BAD),
    "nan": (lambda: x()*float("nan"), BAD),
    "infinite": (lambda: x()/0, BAD), "too large": (lambda: x()*2, BAD),
    "integers": (lambda: x().int(), BAD), "complex": (lambda: x().cfloat(), BAD),
    "numpy": (lambda: x().numpy(), BAD), "list": (lambda: x().tolist(), BAD),
    "needs a gradient": (lambda: x().requires_grad_(), ANY),
    "strided": (lambda: x(6)[::2].transpose(2, 3), ANY), "bool": (lambda: x() > 0, BAD),
    "text": (lambda: "images", BAD)}
PIXELS = {"good": (lambda: np.full((3, 20, 20), 7, np.uint8), ANY),
    "colour": (lambda: np.full((3, 20, 20, 3), 7, np.uint8), ANY),
          "floats": (lambda: np.zeros((3, 20, 20)), BAD), "empty": (lambda: np.zeros((0, 20, 20), np.uint8),
          BAD), "no pixels": (lambda: np.zeros((3, 0, 20), np.uint8), BAD),
          "four channels": (lambda: np.zeros((3, 20, 20, 4), np.uint8), BAD),
          "two dimensions": (lambda: np.zeros((20, 20), np.uint8), BAD),
          "list of odd ones": (lambda: [np.zeros((5, 9), np.uint8), np.zeros((9, 5, 3), np.uint8)], ANY),
          "an empty list": (lambda: [], BAD),
          "none": (lambda: None, BAD), "text": (lambda: "images", BAD),
          "objects": (lambda: np.array([None]), BAD), "16 bits": (lambda: np.zeros((3, 20, 20), np.uint16),
          BAD)}
VALUES = {"good": (lambda: np.array([.1, .4, .2, .9]), ANY), "nan": (lambda: np.array([.1, np.nan]), BAD),
    "infinite": (lambda: np.array([.1, np.inf]), BAD),
          "empty": (lambda: np.array([]), BAD), "texts": (lambda: np.array(["a", "b"]), BAD),
          "none": (lambda: None, BAD), "objects": (lambda: np.array([None, 1]), BAD),
          "matrix": (lambda: np.ones((2, 3, 4)), BAD), "complex": (lambda: np.array([1j, 2]), BAD)}
NUMBERS = [-1, 0, 1, 2, 7, 10**20, 1.5, .5, float("nan"), float("inf"), -float("inf"), "2", "", None, True,
    [], {}, "typo", b"x", (1,), 2j, 1e-300]
NAMED = ["", " ", "typo", "none", "None", None, 0, 1.5, [], ["mse"], "mse", "median", "mean", "ddim",
    "alternating-checkerboard-8", "center", "random-patch-0.5",
         "alternating-checkerboard-0", "alternating-checkerboard--4", "alternating-checkerboard-1e9",
         "center-2", "x"*999, b"mse", ("mse", "mse"), ["ssim"], ["mse", 3], {"mse": 1}]


def finite(found):
    "Whether numbers, wherever they are in a result, are numbers"
    if isinstance(found, dict): return all(map(finite, found.values()))
    if isinstance(found, (tuple, list)): return all(map(finite, found))
    if torch.is_tensor(found): return bool(found.isfinite().all())
    if isinstance(found, (np.ndarray, float,
        np.floating)) and np.asarray(found).dtype.kind == "f": return bool(np.isfinite(found).all())
    return True


def detector(**given):
    usual = dict(inpaint=Inpaint(2), distances=distances_from_names(["mse"]), attempts=2)
    return LMD(load_denoiser("model"), **usual | given)


def estimator(**given):
    return OutOfDomain("model", **dict(quantities=("mse",), steps=2, attempts=2, fpr=.1) | given)


def fitted(**given): return estimator(**given).fit(load("digits", "val")[:60])
def judged(x): return open_calibrated("calibration", "model").predict(x)
def set_to(**given): return Setting(**dict(distances=("mse",), steps=2,
    attempts=2) | given).detector("model").score(x())
def entry(**given): return make_setting({"method": "lmd"} | given).detector("model").score(x())
def column(name): return aggregate_scores(pd.read_parquet("val.parquet"), name, "median")


NOT_ONE, NO_RATE, NO_NAME = (-1, 0, 1.5, "2", "", [], "typo"), (-1, 0, 1, 2, 7, 1.5, ""), ("", " ", "typo",
    "mse")
WITH_TENSORS = {"LMD.score": lambda v: detector().score(v), "LMD.measure": lambda v: detector().measure(v),
                "CalibratedDetector.predict": judged}
WITH_PIXELS = {"to_model": lambda v: to_model(v, 16, 1), "OutOfDomain.predict": lambda v: fitted().predict(v)}
WITH_VALUES = { # each takes (values, good ones)
    "evaluate, inside": evaluate, "evaluate, outside": lambda v, good: evaluate(good, v),
    "roc_auc, inside": roc_auc, "roc_auc, outside": lambda v, good: roc_auc(good, v),
    "auc_interval, inside": auc_interval, "auc_interval, outside": lambda v, good: auc_interval(good, v),
    "conformal_p_values, calibration": conformal_p_values,
    "aggregate, distances": lambda v, good: aggregate(v)}
WITH_NUMBERS = { # what: (function of a number, numbers that must be refused)
    "LMD, attempts": (lambda v: detector(attempts=v).score(x()), NOT_ONE),
    "LMD, batch": (lambda v: detector(batch=v).score(x()), NOT_ONE),
    "LMD, seed": (lambda v: detector(seed=v).score(x()), ("", "typo", [])),
    "Inpaint, steps": (lambda v: detector(inpaint=Inpaint(v)).score(x()), NOT_ONE),
    "Inpaint, t0": (lambda v: detector(inpaint=Inpaint(2, v)).score(x()),
    (-1, 0, 7, 1.5, 10**20, "2", "", [])),
    "time_grid, t0": (lambda v: time_grid(3, v), (-1, 0, 7, 1.5, "2")),
    "random_indices, n": (lambda v: random_indices(9, v), (-1, 0)),
    "flagged_rank, fpr": (lambda v: flagged_rank(99, v), NO_RATE),
    "OutOfDomain, fpr": (lambda v: fitted(fpr=v), NO_RATE),
    **{f"make_setting, {field}": (lambda v, field=field: entry(**{field: v}), ("2", "typo", [], {}))
       for field in ("steps", "attempts", "seed", "n", "t0", "eta", "resample")}}
WITH_NAMES = { # what: (function of a name, names that must be refused)
    "mask_from_name": (mask_from_name, (*NO_NAME, 0, 1.5)), "distances_from_names": (distances_from_names,
    (*NO_NAME, [])),
    "aggregate, aggregate": (lambda v: aggregate(np.ones((3, 2)), v), NO_NAME),
    "aggregate_scores, column": (column, NO_NAME[:3]),
    "LMD, aggregate": (lambda v: detector(aggregate=v).score(x()), NO_NAME),
    "Setting, mask": (lambda v: set_to(mask=v), NO_NAME), "Setting, sampler": (lambda v: set_to(sampler=v),
    NO_NAME),
    "load_params": (lambda v: load_params("settings", v), (*NO_NAME, 0, 1.5)),
    "load, source": (load, NO_NAME), "load, split": (lambda v: load("digits", v), NO_NAME)}
WITH_PATHS = {"read_picture": read_picture, "read_npz": read_npz, "read_metadata": read_metadata,
    "load_denoiser": load_denoiser,
              "open_calibrated": lambda v: open_calibrated(v, "model")}


def calls():
    "(what is called, with what, function without arguments, whether it must be refused), in a fixed order"
    for functions, values in ((WITH_TENSORS, TENSORS), (WITH_PIXELS, PIXELS)):
        for name, f in functions.items():
            for what, (made, bad) in values.items(): yield name, what, lambda f=f, made=made: f(made()), bad
    for name, f in WITH_VALUES.items():
        for what, (made, bad) in VALUES.items():
            bad = bad and not name.startswith("aggregate")      # it takes matrices, and its own columns
            yield name, what, lambda f=f, made=made: f(made(), VALUES["good"][0]()), bad
    for functions, values in ((WITH_NUMBERS, NUMBERS), (WITH_NAMES, NAMED)):
        for name, (f, refused) in functions.items():
            # 10**20 steps are for ever, and True is 1
            for v in values:
                if v == 10**20 and name.endswith(("steps", "attempts", "resample")): continue
                yield name, repr(v)[:40], lambda f=f, v=v: f(v), v in refused and v is not True
    for name, f in WITH_PATHS.items():
        for v, _ in PATHS: yield name, repr(v)[:40], lambda f=f, v=v: f(v), ANY


def generated_call(what, said, function, bad):
    def run():
        traps()
        outcome = call(function, lambda made: (finite(made) or "numbers that are none") if not bad
            else "it was not refused")
        if (found := sprung()) is not True: return "lost", found
        return (outcome, "") if isinstance(outcome, str) else (outcome[0], f"{what}({said}): {outcome[1]}")
    return run


def spread(items, n):
    "n of the items at equal distances, or all"
    items = list(items)
    return items if len(items) <= n else [items[i*len(items)//n] for i in range(n)]


def in_turn(items, key, n):
    "n of the items: one of each key, then another of each, in an order drawn with a fixed seed"
    groups, rng = {}, np.random.default_rng(4)
    for item in items: groups.setdefault(key(item), []).append(item)
    groups = [[group[i] for i in rng.permutation(len(group))] for group in groups.values()]
    rounds = ([g[i] for g in groups if i < len(g)] for i in range(max(map(len, groups))))
    return [item for one in rounds for item in one][:n]


def generated(about):
    functions = list(calls())
    lines = in_turn(command_lines(), lambda line: (line[0], line[2].name), 650)
    for line in lines[:600]: yield Trial("generated: command lines", f"lmd {line[0]}",
        generated_line(line))
    for what, said, function, bad in spread(functions, 350):
        yield Trial("generated: calls", what, generated_call(what, said, function, bad))
    for line in spread(lines, 50): yield Trial("generated: command lines", "the same as real commands",
        real_line(line), 240)

