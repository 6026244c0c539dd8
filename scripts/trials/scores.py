"""What a score may depend on: the picture, the model, the setting; and neither its place nor its company."""
import io
import os
import pickle
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from lmd.calibration import open_calibrated
from lmd.files import read_metadata, write_table

from .inputs import pages
from .world import CPU, DETECT, SCORE, TRAIN, Trial, call, command, judge, weights

FROM_STDIN = "detect", "-", *DETECT[2:]
EVAL = "eval", "inside.parquet", "changed.parquet"


def table(text): return pd.read_csv(io.StringIO(text)).set_index("image").sort_index()


# ---- the place in the list

def in_order(order):
    "The pictures in another order, some of them, or with others between"
    def run():
        names = order(sorted(f"pictures/{p.name}" for p in Path("pictures").iterdir()))
        first = table(command(*DETECT).stdout)
        got = command(*FROM_STDIN, stdin="\n".join(names))
        def right():
            found = table(got.stdout)
            if sorted(found.index) != sorted(names): return "other pictures"
            apart = (found["score"] - first.loc[found.index, "score"]).abs().max()
            return bool(apart < 1e-4) or f"scores differ by {apart:.3g}"
        return judge(got, right)
    return run


def renamed():
    "The same pictures under other names, the last one first"
    first = table(command(*DETECT).stdout)["score"]
    for i, path in enumerate(sorted(Path("pictures").iterdir())): path.rename(f"pictures/x{99 - i}.png")
    got = command(*DETECT)
    return judge(got, lambda: bool(np.abs(table(got.stdout)["score"].to_numpy()[::-1]
        - first.to_numpy()).max() < 1e-4) or "other scores")


def twins():
    "A picture and its copy"
    shutil.copy("pictures/03.png", "pictures/zz.png")
    got = command(*DETECT)
    def right():
        scores = table(got.stdout)["score"]
        return scores["pictures/03.png"] == scores["pictures/zz.png"] or "a picture and its copy differ"
    return judge(got, right)


# ---- what is left out is said

def two_pages():
    pages("pictures/two.tif", 2)
    got = command(*DETECT)
    return judge(got, lambda: "page" in got.stderr or "the second page is left out silently")


def some_of_them():
    got = command(*SCORE, "--set", "n=5")
    return judge(got, lambda: "5 of 24" in got.stdout + got.stderr or "19 pictures are left out silently")


def left_out(name):
    def run():
        Path(f"pictures/{name}").write_bytes(b"something")
        got = command(*DETECT)
        said = name in got.stderr or f"*{Path(name).suffix}" in got.stderr or "1 " in got.stderr
        return judge(got, lambda: said or f"{name} is left out silently")
    return run


# ---- score files that were changed

CHANGED = { # what: (changes of the metadata; None leaves a field out)
    "setting a number": dict(setting=5), "setting missing": dict(setting=None),
    "setting of another field": dict(setting=dict(stepz=3)), "method a number": dict(method=7),
    "method unknown": dict(method="typo"), "method missing": dict(method=None),
    "weights missing": dict(weights=None), "weights of another model": dict(weights="0"*32),
    "weights a list": dict(weights=[1])}
DISTANCES = { # what: a function of the table
    "negative": lambda t: t.assign(ssim=-t["ssim"] - 1), "NaN": lambda t: t.assign(ssim=np.nan),
    "infinite": lambda t: t.assign(ssim=np.inf), "texts": lambda t: t.assign(ssim="x"),
    "complex as texts": lambda t: t.assign(ssim="1j"), "true and false": lambda t: t.assign(ssim=True),
    "missing": lambda t: t[["image", "attempt"]], "no rows": lambda t: t[:0],
    "a row twice": lambda t: pd.concat([t, t[:1]]), "an attempt missing": lambda t: t[1:],
    "images NaN": lambda t: t.assign(image=np.nan)}


def changed_about(changes, args):
    def run():
        about = read_metadata("pictures.parquet") | changes
        frame = pd.read_parquet("pictures.parquet")
        write_table(frame, "changed.parquet", **{k: v for k, v in about.items() if v is not None})
        return judge(command(*args), lambda: "it was not refused")
    return run


def changed_table(change, args):
    def run():
        frame, about = pd.read_parquet("pictures.parquet"), read_metadata("pictures.parquet")
        try: write_table(change(frame), "changed.parquet", **about)
        except (ValueError, TypeError, OSError) as error: return "refused", str(error)
        return judge(command(*args), lambda: "it was not refused")
    return run


def constant():
    "Distances that are all alike tell nothing"
    for name in ("inside", "pictures"):
        frame, about = pd.read_parquet(f"{name}.parquet"), read_metadata(f"{name}.parquet")
        write_table(frame.assign(ssim=.5), f"{name}.parquet", **about)
    got = command("eval", "inside.parquet", "pictures.parquet", "--column", "ssim")
    return judge(got, lambda: "0.5000" in got.stdout or f"constant distances tell: {got.stdout}")


# ---- models, calibrations, processes

def more_pictures():
    "A training of pictures, some of which came later, does not go on with the old ones"
    for part, rows in (("train", range(8)), ("val", range(8, 16))):
        Path(f"set/{part}").mkdir(parents=True)
        for i in rows: shutil.copy(f"pictures/{i:02}.png", f"set/{part}")
    train = "train", "./set", "--config", "tiny", "--out", "made/model", *CPU
    if judge(first := command(*train), lambda: True) != "right": return judge(first, lambda: True)
    before = weights("made/model")
    for i in range(16, 24): shutil.copy(f"pictures/{i:02}.png", "set/train")
    return judge(command(*train), lambda: weights("made/model") != before or "the old weights are released")


def fitted(method):
    "A method that is fitted, with a model that was trained on a folder"
    def run():
        for part, rows in (("train", range(12)), ("val", range(12, 24))):
            Path(f"set/{part}").mkdir(parents=True)
            for i in rows: shutil.copy(f"pictures/{i:02}.png", f"set/{part}")
        made = command("train", "./set", "--config", "tiny", "--out", "made/model", *CPU)
        if judge(made, lambda: True) != "right": return judge(made, lambda: True)
        few = () if method == "ddpm-ood" else ("--set", "components=[1]")  # for as few pictures as these
        got = command("score", "./pictures", "--model", "made/model", "--method", method, "--set", "n=4",
            *few, "--out", "made.parquet", *CPU)
        outcome = judge(got, lambda: len(pd.read_parquet("made.parquet")) > 0)
        return ("silently wrong", f"it is refused: {outcome[1]}") if outcome[0] == "refused" else outcome
    return run


def repeated():
    "A calibration on ten copies of each picture says that it guarantees nothing"
    for path in list(Path("pictures").iterdir()):
        for i in range(9): shutil.copy(path, f"pictures/{path.stem}-{i}.png")
    if (made := command(*SCORE)).code: return judge(made, lambda: True)
    warnings.simplefilter("always")
    got = command("calibrate", "made.parquet", "--out", "made")
    said = "repeat" in got.stderr or "same pixels" in got.stderr or "copies" in got.stderr
    return judge(got, lambda: said or f"nothing is said: {got.stderr[-200:]}")


def pickled():
    calibrated = open_calibrated("calibration", "model")
    return call(lambda: pickle.loads(pickle.dumps(calibrated)), lambda made: len(made.calibration)
        == len(calibrated.calibration))


def in_a_thread():
    "A training outside the main thread"
    found = []
    thread = threading.Thread(target=lambda: found.append(command(*TRAIN)))
    thread.start()
    thread.join()
    return judge(found[0], lambda: bool(weights("made/model")))


def latin():
    "A parameter file in UTF-8 where the locale is another, as a real process"
    Path("params.yaml").write_text("# Größe\n" + Path("params.yaml").read_text(encoding="utf-8"),
        encoding="utf-8")
    env = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-m", "lmd", *SCORE], env=env, capture_output=True,
        encoding="utf-8", errors="replace", timeout=200)
    return "right" if done.returncode == 0 else ("silently wrong", done.stderr[-200:])


def scores(about):
    kind = "what a score depends on"
    orders = {"backwards": lambda names: names[::-1], "every other one": lambda names: names[::2],
        "one alone": lambda names: names[7:8], "shuffled": lambda names:
            [names[i] for i in np.random.default_rng(1).permutation(len(names))]}
    for words, order in orders.items(): yield Trial(kind, f"pictures {words}", in_order(order))
    yield Trial(kind, "pictures of other names", renamed)
    yield Trial(kind, "a picture twice", twins)
    yield Trial(kind, "a second page", two_pages)
    yield Trial(kind, "an n below the number of pictures", some_of_them)
    for name in ("notes.txt", "scan.pdf", "drawing.svg"): yield Trial(kind, "files that are no pictures",
        left_out(name))
    yield Trial(kind, "more pictures since the last training", more_pictures)
    for method in ("msma", "diffpath", "ddpm-ood"): yield Trial(kind, "a fitted method, a model of a folder",
        fitted(method), 400)
    yield Trial(kind, "a calibration on copies", repeated)
    yield Trial(kind, "a calibrated detector is pickled", pickled)
    yield Trial(kind, "a training in a thread", in_a_thread)
    yield Trial(kind, "another locale", latin, 260)
    kind = "score files that were changed"
    for what, changes in CHANGED.items(): yield Trial(kind, what, changed_about(changes, EVAL))
    for what, change in DISTANCES.items(): yield Trial(kind, f"distances: {what}",
        changed_table(change, EVAL))
    for what in ("negative", "NaN", "texts", "missing", "no rows", "an attempt missing"):
        yield Trial(kind, f"distances: {what}", changed_table(DISTANCES[what],
            ("calibrate", "changed.parquet", "--out", "made")))
    yield Trial(kind, "distances: all alike", constant)
