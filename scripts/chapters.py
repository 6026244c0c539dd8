"""Run notebooks as nbdev_test does, each in a process of its own: what one changes, the next does not see.

    python scripts/chapters.py                      # all, two at a time
    python scripts/chapters.py nbs/08_masking.ipynb
"""
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path

from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.test import test_nb

# once, for all chapters
import accelerate, diffusers.optimization, diffusers.training_utils, lpips, matplotlib.pyplot, pandas
import seaborn, sklearn.metrics, torch._dynamo
from diffusers import UNet2DModel
from lmd import calibration, cli_pictures, releasing, scoring, sources, training
from fork_lmd import serve

for name in ("make_letters", "make_photo_patches"):  # drawn once; their own chapter defines them anew
    setattr(sources, name, cache(getattr(sources, name)))
    getattr(sources, name)()


def run(path):
    "Its path, whether it passed, and the seconds that it took"
    return path, *test_nb(path, skip_flags=config.tst_flags.split(), basepath=config.config_path)


def apart(path):
    "The same in a process of its own, which may start others"
    here, there = fork.Pipe(duplex=False)
    process = fork.Process(target=lambda: there.send(run(path)))
    process.start()
    there.close()
    try: return here.recv()
    except EOFError: return path, False, 0.          # it died without a word
    finally: process.join()


config, fork = get_config(), get_context("fork")
serve()
os.chdir(config.config_path)
paths = [Path(p).absolute() for p in sys.argv[1:]]
if not paths: paths = [p for p in nbglob(config.nbs_path, as_path=True) if not (p.parent/".notest").exists()]
paths = sorted(paths, key=lambda p: p.stat().st_size, reverse=True)       # the longest first
with ThreadPoolExecutor(2) as pool: done = sorted(pool.map(apart, paths), key=lambda result: -result[2])
for path, _, seconds in done: print(f"{seconds:6.1f} s  {path.relative_to(config.config_path)}")
if failed := [str(path) for path, passed, _ in done if not passed]: sys.exit("failed: " + " ".join(failed))
