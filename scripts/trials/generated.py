"""Generated inputs: every option of every command, and every function that a user calls, with values drawn by number.

A value is marked where nothing but a refusal is right. Everything else may be refused or give sane results."""
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
from lmd.calibration import conformal_p_values, flagged_rank, open_calibrated
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
WHOLE = [("-1", BAD), ("0", BAD), ("1", ANY), ("2", ANY), ("3", ANY), ("nan", BAD), ("", BAD), ("ten", BAD), ("1.5", BAD), ("1e3", BAD),
         ("99999999999999999999999", ANY), ("0x10", BAD), (" 7", ANY), ("-0", BAD), ("None", BAD)]
NUMBER = [("nan", BAD), ("inf", BAD), ("-inf", BAD), ("-1", BAD), ("0", ANY), ("1", ANY), ("2", ANY), (".05", ANY), (".5", ANY), ("1e-300", ANY),
          ("1e300", ANY), ("", BAD), ("x", BAD), ("0,05", BAD), ("5%", BAD)]
TEXT = [("", BAD), (" ", BAD), ("typo", BAD), ("DIGITS", BAD), ("digits ", BAD), (":", BAD), ("::", BAD), ("digits:", ANY), ("digits::", ANY),
        ("digits:val:flip", ANY), ("digits:val:flip:x", ANY), ("digits:trian", BAD), ("None", BAD), ("0", BAD), ("-", ANY), ("[]", BAD),
        ("{}", BAD), ("%s", BAD), ("ü", BAD), ("\u202e", BAD), ("x"*5000, BAD), ("a\nb", BAD), ("../typo", BAD), ("quick", ANY),
        ("other", ANY), ("val", ANY), ("test", ANY), ("train", ANY), ("mse", ANY), ("ssim", ANY), ("mse/fill", ANY), ("lpips", ANY),
        ("median", ANY), ("mean", ANY), ("lmd", ANY), ("likelihood", ANY), ("image", BAD), ("attempt", BAD)]
PATHS = [("", BAD), (" ", ANY), (".", ANY), ("missing", ANY), ("missing/x", ANY), ("letter.txt", ANY), ("mine", ANY), ("mine/new", ANY),
         ("empty", ANY), ("link", ANY), ("linked", ANY), ("dangling", ANY), ("fifo", ANY), ("null", ANY), ("letter.txt/x", BAD), ("ü/ñ", ANY),
         ("x"*300, BAD), ("a b", ANY), ("a\nb", ANY), ("%s", ANY), ("{}", ANY), ("*", ANY), ("~nobody/x", ANY), ("model", ANY),
         ("model/lmd.json", ANY), ("val.parquet", ANY), ("inside.parquet", ANY), ("pictures", ANY), ("./pictures", ANY), ("calibration", ANY),
         ("calibration.json", ANY), ("params.yaml", ANY), ("data", ANY), ("a/../b", ANY), ("./pictures/00.png", ANY)]
FOLDERS = {"out", "run_folder", "params", "root", "calibration", "maps", "report", "models", "mirror", "model", "scores", "in_domain",
           "out_of_domain", "work", "student", "latent", "reports", "notebooks"}

READ_ONLY = {"root", "models", "mirror", "params", "work", "run_folder"}      # nothing may be needed of what is there

BASE = { # a good command line of each command: parameter -> values
    "train": dict(source="digits", config="tiny", out="made/model", device="cpu"),
    "score": dict(sources="./pictures", model="model", setting="quick", out="made.parquet", device="cpu"),
    "calibrate": dict(scores="val.parquet", out="made"),
    "detect": dict(source="./pictures", model="model", calibration="calibration", device="cpu"),
    "eval": dict(in_domain="inside.parquet", out_of_domain="pictures.parquet"),
    "verify": dict(scores="inside.parquet", models=".", n="4", device="cpu"),
    "reconstruct": dict(sources="digits", model="model", setting="quick", out="made.npz", device="cpu"),
    "data list": {}, "data fetch": dict(names="digits"), "weights": {}}
LONG = {"study bench", "study million", "study page", "study outlier-aware", "weights", "weights fetch", "model fetch"}
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
    if isinstance(kind, click.Choice): return [(c, ANY) for c in kind.choices] + [("", BAD), ("typo", BAD), ("ü", BAD)]
    if getattr(parameter, "is_flag", False): return [(None, ANY)]
    if isinstance(kind, click.types.IntParamType): return WHOLE if isinstance(kind, click.IntRange) else [(v, BAD if v in ("nan", "", "ten") else ANY) for v, _ in WHOLE]
    if isinstance(kind, click.types.FloatParamType): return NUMBER
    if parameter.name in READ_ONLY: return [(v, ANY) for v, _ in PATHS]
    return PATHS if parameter.name in FOLDERS else TEXT + [(v, ANY) for v, _ in PATHS[3:20]]


def command_lines():
    "(words of the command, its parameter, value, whether it must be refused) for every option, in a fixed order"
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


def sprung():
    "True, or what has happened to the user's files, links and devices"
    if (found := kept()) is not True: return found
    for name in ("link", "linked", "dangling"):
        if not os.path.islink(name): return f"the link {name} was replaced"
    for name in ("fifo", "null"):
        if not os.path.lexists(name) or stat.S_ISREG(os.lstat(name).st_mode): return f"{name} was replaced"
    for name in ("model/lmd.json", "val.parquet", "inside.parquet", "params.yaml", "pictures/00.png", "data/digits/test.npy"):
        if not Path(name).exists(): return f"{name} is gone"
    return True


def sane(words, got, bad):
    "Whether a command that said that all went well has done well"
    if bad: return "it was not refused"
    if words == "score":
        made = [p for p in Path().rglob("*.parquet") if p.name not in ("val.parquet", "inside.parquet", "pictures.parquet", "mapped.parquet")
                and ".shards" not in p.parts and "runs" not in p.parts]
        return all(sane_scores(p) is True for p in made) or "scores that are none"
    if words == "detect": return sane_csv(got.stdout)
    if words == "eval": return "nan" not in got.stdout.lower() or "numbers that are none"
    if words == "train":
        found = load_denoiser(next(p.parent for p in Path().rglob("lmd.json") if p.parent.name != "model" or p.parent != Path("model")))
        return all(p.isfinite().all() for p in found.parameters()) or "weights that are none"
    return True


def generated_line(line):
    words, made, parameter, value, bad = line
    def run():
        traps()
        before = {p: Path(p).read_bytes() for p in ("val.parquet", "inside.parquet", "model/lmd.json", "params.yaml")}
        args = arguments(words, made, parameter, value)
        stdin = "pictures/00.png\n" if value == "-" else None
        got = command(*args, stdin=stdin)
        if (found := sprung()) is not True: return "lost", f"{args}: {found}"
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
        try: done = subprocess.run([sys.executable, "-m", "lmd", *args], capture_output=True, stdin=subprocess.DEVNULL, timeout=200)
        except subprocess.TimeoutExpired: return "hang"
        except ValueError: return "refused", "no such argument can be given"
        out, err = (text.decode("utf-8", "backslashreplace") for text in (done.stdout, done.stderr))
        if (found := sprung()) is not True: return "lost", f"{args}: {found}"
        got = Result(done.returncode, out, err, RuntimeError(err[-200:]) if "Traceback" in err else None)
        outcome = judge(got, lambda: sane(words, got, bad))
        return (outcome, "") if isinstance(outcome, str) else (outcome[0], f"{args}: {outcome[1]}")
    return run


# ---- calls from Python

def x(n=3, size=16, **k): return torch.linspace(-1, 1, n*size*size).reshape(n, 1, size, size)

TENSORS = { # what: (images for the network of the world, whether they must be refused)
    "good": (lambda: x(), ANY), "float64": (lambda: x().double(), ANY), "half": (lambda: x().half(), ANY), "meta": (lambda: x().to("meta"), BAD),
    "sparse": (lambda: x().to_sparse(), BAD), "none": (lambda: None, BAD), "empty": (lambda: x()[:0], BAD), "one dimension less": (lambda: x()[0], BAD),
    "another size": (lambda: x(3, 8), BAD), "three channels": (lambda: x().expand(-1, 3, -1, -1), BAD), "nan": (lambda: x()*float("nan"), BAD),
    "infinite": (lambda: x()/0, BAD), "too large": (lambda: x()*2, BAD), "integers": (lambda: x().int(), BAD), "complex": (lambda: x().cfloat(), BAD),
    "numpy": (lambda: x().numpy(), BAD), "list": (lambda: x().tolist(), BAD), "needs a gradient": (lambda: x().requires_grad_(), ANY),
    "strided": (lambda: x(6)[::2].transpose(2, 3), ANY), "bool": (lambda: x() > 0, BAD), "text": (lambda: "images", BAD)}
PIXELS = {"good": (lambda: np.full((3, 20, 20), 7, np.uint8), ANY), "colour": (lambda: np.full((3, 20, 20, 3), 7, np.uint8), ANY),
          "floats": (lambda: np.zeros((3, 20, 20)), BAD), "empty": (lambda: np.zeros((0, 20, 20), np.uint8), BAD), "no pixels": (lambda: np.zeros((3, 0, 20), np.uint8), BAD),
          "four channels": (lambda: np.zeros((3, 20, 20, 4), np.uint8), BAD), "two dimensions": (lambda: np.zeros((20, 20), np.uint8), BAD),
          "list of odd ones": (lambda: [np.zeros((5, 9), np.uint8), np.zeros((9, 5, 3), np.uint8)], ANY), "an empty list": (lambda: [], BAD),
          "none": (lambda: None, BAD), "text": (lambda: "images", BAD), "objects": (lambda: np.array([None]), BAD), "16 bits": (lambda: np.zeros((3, 20, 20), np.uint16), BAD)}
VALUES = {"good": (lambda: np.array([.1, .4, .2, .9]), ANY), "nan": (lambda: np.array([.1, np.nan]), BAD), "infinite": (lambda: np.array([.1, np.inf]), BAD),
          "empty": (lambda: np.array([]), BAD), "texts": (lambda: np.array(["a", "b"]), BAD), "none": (lambda: None, BAD), "objects": (lambda: np.array([None, 1]), BAD),
          "matrix": (lambda: np.ones((2, 3, 4)), BAD), "complex": (lambda: np.array([1j, 2]), BAD)}
NUMBERS = [-1, 0, 1, 2, 7, 10**20, 1.5, .5, float("nan"), float("inf"), -float("inf"), "2", "", None, True, [], {}, "typo", b"x", (1,), 2j, 1e-300]
NAMED = ["", " ", "typo", "none", "None", None, 0, 1.5, [], ["mse"], "mse", "median", "mean", "ddim", "alternating-checkerboard-8", "center", "random-patch-0.5",
         "alternating-checkerboard-0", "alternating-checkerboard--4", "alternating-checkerboard-1e9", "center-2", "x"*999, b"mse", ("mse", "mse"), ["ssim"], ["mse", 3], {"mse": 1}]


def finite(found):
    "Whether numbers, wherever they are in a result, are numbers"
    if isinstance(found, dict): return all(map(finite, found.values()))
    if isinstance(found, (tuple, list)): return all(map(finite, found))
    if torch.is_tensor(found): return bool(found.isfinite().all())
    if isinstance(found, (np.ndarray, float, np.floating)) and np.asarray(found).dtype.kind == "f": return bool(np.isfinite(found).all())
    return True


def detector(**given): return LMD(load_denoiser("model"), inpaint=Inpaint(2), **{"distances": distances_from_names(["mse"]), "attempts": 2} | given)


def calls():
    "(what is called, function without arguments, whether it must be refused), in a fixed order"
    for what, (images, bad) in TENSORS.items():
        yield "LMD.score", f"images: {what}", lambda images=images: detector().score(images()), bad
        yield "LMD.measure", f"images: {what}", lambda images=images: detector().measure(images()), bad
        yield "CalibratedDetector.predict", f"images: {what}", lambda images=images: open_calibrated("calibration", "model").predict(images()), bad
        yield "load_denoiser", f"images: {what}", lambda images=images: load_denoiser("model")(images(), .5), ANY if what in ("nan", "infinite", "too large", "empty") else None
    for what, (pixels, bad) in PIXELS.items():
        yield "to_model", f"images: {what}", lambda pixels=pixels: to_model(pixels(), 16, 1), bad
        yield "OutOfDomain.fit", f"X: {what}", lambda pixels=pixels: estimator().fit(pixels()), ANY
        yield "OutOfDomain.predict", f"X: {what}", lambda pixels=pixels: estimator().fit(load("digits", "val")[:60]).predict(pixels()), bad
    for what, (values, bad) in VALUES.items():
        good = VALUES["good"][0]
        for name, function in (("evaluate", evaluate), ("roc_auc", roc_auc), ("auc_interval", auc_interval)):
            yield name, f"inside: {what}", lambda f=function, values=values: f(values(), good()), bad
            yield name, f"outside: {what}", lambda f=function, values=values: f(good(), values()), bad
        yield "conformal_p_values", f"calibration: {what}", lambda values=values: conformal_p_values(values(), good()), bad
        yield "conformal_p_values", f"scores: {what}", lambda values=values: conformal_p_values(good(), values()), BAD if what in ("nan", "texts", "none", "objects", "complex") else ANY
        yield "aggregate", f"distances: {what}", lambda values=values: aggregate(values()), ANY
    for v in NUMBERS:
        said = repr(v)
        yield "LMD", f"attempts={said}", lambda v=v: detector(attempts=v).score(x()), BAD if v in (-1, 0, 1.5, "2", "", [], "typo") else ANY
        yield "LMD", f"batch={said}", lambda v=v: detector(batch=v).score(x()), BAD if v in (-1, 0, 1.5, "2", "", [], "typo") or v is None else ANY
        yield "LMD", f"seed={said}", lambda v=v: detector(seed=v).score(x()), ANY
        yield "Inpaint", f"steps={said}", lambda v=v: detector(inpaint=Inpaint(v)).score(x()), BAD if v in (-1, 0, 1.5, "2", "", [], "typo") else ANY if v not in (10**20,) else None
        yield "Inpaint", f"t0={said}", lambda v=v: detector(inpaint=Inpaint(2, v)).score(x()), BAD if v in (-1, 0, 7, 1.5, 10**20, "2", "", []) else ANY
        yield "time_grid", f"t0={said}", lambda v=v: time_grid(3, v), ANY
        yield "random_indices", f"n={said}", lambda v=v: random_indices(9, v), BAD if v in (-1, 0) else ANY
        yield "flagged_rank", f"fpr={said}", lambda v=v: flagged_rank(99, v), BAD if v in (-1, 0, 1, 2, 7, 1.5, "") else ANY
        yield "OutOfDomain", f"fpr={said}", lambda v=v: estimator(fpr=v).fit(load("digits", "val")[:60]), BAD if v in (-1, 0, 1, 2, 7, 1.5, "") else ANY
        for field in ("steps", "attempts", "seed", "n", "t0", "eta", "resample"):
            yield "make_setting", f"{field}={said}", lambda v=v, field=field: make_setting({"method": "lmd", field: v}).detector("model").score(x()), ANY if field in ("seed", "n") or v in (1, 2, 7, 10**20, .5, 1e-300, None, True) else ANY
    for v in NAMED:
        said = repr(v)[:40]
        yield "mask_from_name", f"name={said}", lambda v=v: mask_from_name(v), BAD if v in ("", " ", "typo", 0, 1.5, "mse") else ANY
        yield "distances_from_names", f"names={said}", lambda v=v: distances_from_names(v), BAD if v in ("", " ", "typo", [], "mse") else ANY
        yield "aggregate", f"aggregate={said}", lambda v=v: aggregate(np.ones((3, 2)), v), BAD if v in ("", " ", "typo", "mse") else ANY
        yield "aggregate_scores", f"column={said}", lambda v=v: aggregate_scores(pd.read_parquet("val.parquet"), v, "median"), BAD if v in ("", " ", "typo") else ANY
        yield "LMD", f"aggregate={said}", lambda v=v: detector(aggregate=v).score(x()), BAD if v in ("", " ", "typo", "mse") else ANY
        yield "Setting", f"mask={said}", lambda v=v: Setting(mask=v, distances=("mse",), steps=2, attempts=2).detector("model").score(x()), BAD if v in ("", " ", "typo", "mse") else ANY
        yield "Setting", f"sampler={said}", lambda v=v: Setting(sampler=v, distances=("mse",), steps=2, attempts=2).detector("model").score(x()), BAD if v in ("", " ", "typo", "mse") else ANY
        yield "load_params", f"name={said}", lambda v=v: load_params("settings", v), BAD if v in ("", " ", "typo", 0, 1.5) else ANY
        yield "load", f"source={said}", lambda v=v: load(v), BAD if v in ("", " ", "typo", "mse") else ANY
        yield "load", f"split={said}", lambda v=v: load("digits", v), BAD if v in ("", " ", "typo", "mse") else ANY
    for v, _ in PATHS:
        for function in (read_picture, read_npz, read_metadata, load_denoiser):
            yield function.__name__, f"path={v[:40]!r}", lambda v=v, f=function: f(v), ANY
        yield "open_calibrated", f"path={v[:40]!r}", lambda v=v: open_calibrated(v, "model"), ANY


def estimator(**given): return OutOfDomain("model", **{"quantities": ("mse",), "steps": 2, "attempts": 2, "fpr": .1} | given)


def generated_call(what, said, function, bad):
    def run():
        traps()
        outcome = call(function, lambda made: (finite(made) or "numbers that are none") if not bad else "it was not refused")
        if (found := sprung()) is not True: return "lost", found
        return (outcome, "") if isinstance(outcome, str) else (outcome[0], f"{what}({said}): {outcome[1]}")
    return run


def spread(items, n):
    "n of the items at equal distances, or all"
    items = list(items)
    return items if len(items) <= n else [items[i*len(items)//n] for i in range(n)]


def generated(about):
    lines, functions = list(command_lines()), [c for c in calls() if c[3] is not None]
    for line in spread(lines, 600): yield Trial("generated: command lines", f"lmd {line[0]}", generated_line(line))
    for what, said, function, bad in spread(functions, 350):
        yield Trial("generated: calls", what, generated_call(what, said, function, bad))
    for line in spread(lines[3:], 50): yield Trial("generated: command lines", "the same as real commands", real_line(line), 240)

