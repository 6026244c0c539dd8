"""What a run is given: pictures, names, folders, parameter files, foreign models, devices."""
import io
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from PIL import Image

from lmd.diffusion import load_denoiser
from lmd.pictures import read_picture

from .world import CPU, DETECT, SCORE, Trial, call, command, judge, kept, sane_csv, sane_scores, weights

SKIP = *DETECT, "--skip-unreadable"


def gray(seed=0, size=(20, 20)): return np.random.default_rng(seed).integers(0, 256, size).astype(np.uint8)


# ---- pictures

def saved(array, path, mode=None, **options): Image.fromarray(array, mode).save(path, **options)

def tiff16(path, levels, **tags):
    "A 16-bit TIFF written by hand: little-endian, one strip"
    height, width = levels.shape
    entries = {256: (4, width), 257: (4, height), 258: (3, 16), 259: (3, 1),
        262: (3, tags.get("photometric", 1)),
               273: (4, 0), 277: (3, 1), 278: (4, height), 279: (4, levels.size*2)}
    entries[273] = 4, 8 + 2 + 12*len(entries) + 4
    data = b"II*\0" + (8).to_bytes(4, "little") + len(entries).to_bytes(2, "little")
    for tag, (kind, value) in sorted(entries.items()):
        data += tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + (1).to_bytes(4,
            "little") + value.to_bytes(4, "little")
    Path(path).write_bytes(data + bytes(4) + levels.astype("<u2").tobytes())

def exif(path, orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    Image.fromarray(gray()).convert("RGB").save(path, quality=95, exif=tags)

def pages(path, n):
    first, *more = [Image.fromarray(gray(i)) for i in range(n)]
    first.save(path, save_all=True, append_images=more)

def transparent16(path):
    def chunk(kind, data): return struct.pack(">I", len(data)) + kind + data + struct.pack(">I",
        zlib.crc32(kind + data))
    rows = b"".join(b"\0" + bytes([0, 0, 200, 200])*10 for _ in range(20))
    Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR",
        struct.pack(">IIBBBBB", 20, 20, 16, 0, 0, 0, 0))
                           + chunk(b"tRNS", struct.pack(">H", 0)) + chunk(b"IDAT",
                           zlib.compress(rows)) + chunk(b"IEND", b""))

levels = gray().astype(np.uint16)
white = np.tile(np.array([255, 200], np.uint8), (20, 10))
GOOD = { # what: (file, function of the path that writes it, 8-bit pixels or None where any will do)
    "8 bits": ("a.png", lambda p: saved(gray(), p), gray()),
    "1 bit": ("a.png", lambda p: Image.fromarray(gray()).convert("1").save(p), None),
    "palette": ("a.gif", lambda p: Image.fromarray(gray()).convert("P").save(p), None),
    "16 bits": ("a.png", lambda p: saved(levels*257, p), gray()),
    "16-bit TIFF": ("a.tif", lambda p: tiff16(p, levels*257), gray()),
    "16-bit TIFF, white is zero": ("a.tif", lambda p: tiff16(p, 65535 - levels*257, photometric=0), gray()),
    "transparent 16-bit gray": ("a.png", transparent16, white),
    "odd orientation": ("a.jpg", lambda p: exif(p, 77), None),
    "32-bit integer TIFF": ("a.tif", lambda p: saved(levels.astype(np.int32)*257, p), gray()),
    "TGA": ("a.tga", lambda p: saved(gray(), p), gray()),
    "suffix in capitals": ("a.PNG", lambda p: saved(gray(), p, format="PNG"), gray()),
    "one pixel": ("a.png", lambda p: saved(gray(0, (1, 1)), p), gray(0, (1, 1))),
    "one line": ("a.png", lambda p: saved(gray(0, (1, 3000)), p), gray(0, (1, 3000)))}
FLAT = {"12 bits in 16": 16, "8 bits in 16": 1}             # levels times that: not black, or refused
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n(ran) (ran.txt) (w) file\n%%EOF\n"
BAD = { # what: bytes
    "empty": b"", "text": b"not a picture", "EPS": EPS, "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "header alone": b"\x89PNG\r\n\x1a\n", "zeros": bytes(4096), "cut": None, "a bomb": None, "floats": None}


def bad_bytes(what):
    buffer = io.BytesIO()
    if what == "cut": Image.fromarray(gray()).save(buffer, "PNG"); return buffer.getvalue()[:120]
    if what == "floats": Image.fromarray(np.full((9, 9), np.nan, np.float32)).save(buffer, "TIFF")
    if what == "a bomb":                    # a header of 400 megapixels on 20 x 20 of them
        Image.fromarray(gray()).save(buffer, "PNG")
        head = b"IHDR" + (20_000).to_bytes(4, "big")*2 + buffer.getvalue()[24:29]
        return buffer.getvalue()[:12] + head + zlib.crc32(head).to_bytes(4, "big") + buffer.getvalue()[33:]
    return buffer.getvalue() or BAD[what]


def good_picture(what):
    def run():
        name, write, wanted = GOOD[what]
        Path("own").mkdir()
        write(f"own/{name}")
        def right(found):
            if wanted is None: return found.dtype == np.uint8 and found.std() > 0 or "no picture"
            return np.array_equal(found,
                wanted) or f"other pixels: {found.ravel()[:5]} for {wanted.ravel()[:5]}"
        first = call(lambda: read_picture(f"own/{name}"), right)
        if first[0] in ("silently wrong", "traceback"): return first
        got = command("detect", "./own", *DETECT[2:])
        if first[0] == "refused": return judge(got, lambda: "detect reads what read_picture refuses")
        return judge(got, lambda: got.stdout.count("\n") == 2 and sane_csv(got.stdout))
    return run


def flat_picture(what):
    def run():
        saved(levels*FLAT[what], "a.png")
        return call(lambda: read_picture("a.png"), lambda found: found.max() > 100
            or f"levels up to {found.max()}: black")
    return run


def bad_picture(what, skip):
    def run():
        Path("pictures/bad.png").write_bytes(bad_bytes(what))
        got = command(*(SKIP if skip else DETECT))
        if Path("ran.txt").exists(): return "silently wrong", "it ran a program in the picture"
        if not skip: return judge(got, lambda: "an unreadable picture is not named")
        lines = got.stdout.count("\n") - 1
        named = "bad.png" in got.stderr and got.code == 3
        return judge(got, lambda: lines == 24 and named and sane_csv(got.stdout)
            or f"{lines} lines, exit {got.code}")
    return run


def odd(what, make, lines):
    "A folder with something odd in it: so many pictures must be judged, or it must be refused"
    def run():
        make()
        got = command(*SKIP, "--report", "made.html")
        if (found := kept()) is not True: return "lost", found
        found = got.stdout.count("\n") - 1
        return judge(got, lambda: found in lines and sane_csv(got.stdout)
            or f"{found} pictures judged, not {lines}")
    return run


ODD = { # what: (how it is made, how many pictures should be judged)
    "a FIFO": (lambda: os.mkfifo("pictures/f.png"), [24]),
    "a folder with a picture's name": (lambda: os.mkdir("pictures/f.png"), [24]),
    "a dangling link": (lambda: os.symlink("nowhere", "pictures/l.png"), [24]),
    "a link to itself": (lambda: os.symlink("l.png", "pictures/l.png"), [24]),
    "a linked picture": (lambda: os.symlink("00.png", "pictures/l.png"), [25]),
    "a linked folder": (lambda: (shutil.copytree("pictures", "more"),
    os.symlink("../more", "pictures/more")), [48]),
    "a folder linked to its parent": (lambda: os.symlink("..", "pictures/loop"), [24]),
    "a hidden folder": (lambda: shutil.copytree("pictures", "pictures/.thumbnails"), [24]),
    "__MACOSX": (lambda: shutil.copytree("pictures", "pictures/__MACOSX"), [24]),
    "a file of macOS": (lambda: Path("pictures/._00.png").write_bytes(b"\0\5\x16\7"), [24]),
    "other files": (lambda: Path("pictures/notes.txt").write_text("x", encoding="utf-8"), [24])}
NAMES = ["a$$b.png", "=1+1.png", "<b>.png", '"q".png', "a,b.png", "a\nb.png", "-x.png", " .png", "ü.png",
    "\u202e.png",
         "x"*240 + ".png", "%s{}.png", b"\xff\xfe.png", "&amp;.png", "a'b.png", "$(touch x).png"]


def named(name, *options):
    "A picture with an odd name: it is judged like any other, and nothing comes of its name"
    def run():
        shutil.copy(b"pictures/00.png", b"pictures/" + (name if isinstance(name, bytes)
            else os.fsencode(name)))
        if options[0] == "score": args = "score", "./pictures", *SCORE[2:-4], "--out", "made.csv", *CPU
        else: args = "detect", "./pictures", "--model", "model", "--calibration", "mapped", *options, *CPU
        got = command(*args)
        if Path("x").exists() or Path("../x").exists(): return "silently wrong", "it ran the name"
        def right():
            if options[0] != "score": return got.stdout.count("\n") >= 26 and sane_csv(got.stdout)
            text = Path("made.csv").read_text(encoding="utf-8", errors="surrogateescape")
            return not any(cell.startswith("=") for cell in text.splitlines()) or "the name is a formula"
        outcome = judge(got, right)
        return ("lost", f"one name ends the run: {outcome[1]}") if outcome[0] == "refused" else outcome
    return run


# ---- places to write to

def places():
    "What --out may be given: name of the place, how it is made, and what must be true of it afterwards"
    def device(): os.mknod("null", 0o666 | stat.S_IFCHR, os.makedev(1,
        3)) if os.geteuid() == 0 else os.mkfifo("null")
    def is_special(): return not stat.S_ISREG(os.lstat("null").st_mode) or "the device was replaced by a file"
    def linked(): return os.path.islink("link") or "the link was replaced"
    return {
        "a folder of the user's": ("mine", lambda: None, lambda: True),
        "a file of the user's": ("letter.txt", lambda: None, lambda: True),
        "below a file": ("letter.txt/x", lambda: None, lambda: True),
        "a device": ("null", device, is_special),
        "a FIFO": ("null", lambda: os.mkfifo("null"), is_special),
        "a link to a file": ("link", lambda: os.symlink("letter.txt", "link"), linked),
        "a link to a folder": ("link", lambda: os.symlink("mine", "link"), linked),
        "a dangling link": ("link", lambda: os.symlink("nowhere", "link"), linked),
        "an empty name": ("", lambda: None, lambda: True),
        "a name of 300 letters": ("x"*300, lambda: None, lambda: True)}


def written(args, place):
    def run():
        path, make, after = places()[place]
        make()
        got = command(*args(path))
        if (found := kept(path)) is not True: return "lost", found
        if (found := after()) is not True: return "lost", found
        return judge(got, lambda: True)
    return run


WRITERS = {
    "train --out": lambda path: ("train", "digits", "--config", "tiny", "--out", path, *CPU),
    "train --run": lambda path: ("train", "digits", "--config", "tiny", "--out", "made/m", "--run", path,
    *CPU),
    "score --out": lambda path: ("score", "digits", "--model", "model", "--setting", "quick", "--out", path,
    *CPU),
    "calibrate --out": lambda path: ("calibrate", "val.parquet", "--out", path),
    "detect --report": lambda path: (*DETECT, "--report", path),
    "detect --maps": lambda path: ("detect", "./pictures", "--model", "model", "--calibration", "mapped",
    "--fpr", ".5",
                                   "--maps", path, *CPU),
    "reconstruct --out": lambda path: ("reconstruct", "digits", "--model", "model", "--setting", "quick",
    "--out", path, *CPU),
    "data fetch --root": lambda path: ("data", "fetch", "digits", "--root", path)}


def fetched_over():
    "`lmd data fetch` beside a folder of the user's that has the name of a set"
    shutil.copytree("mine", "letters")
    got = command("data", "fetch", "letters", "--root", ".")
    if not Path("letters/letter.txt").exists(): return "lost", "the folder letters is gone"
    return judge(got, lambda: "it says that it has written letters")


def others_data():
    "Two trainings with one name on different pictures must not give one model"
    for who, rows in (("cats", range(12)), ("dogs", range(12, 24))):
        for part in ("train", "val"):
            Path(f"{who}/{part}").mkdir(parents=True)
            for i in rows: shutil.copy(f"pictures/{i:02}.png", f"{who}/{part}")
    made = {}
    for who, out in (("cats", "a/model"), ("dogs", "b/model")):
        got = command("train", f"./{who}", "--config", "tiny", "--out", out, *CPU)
        if judge(got, lambda: True) != "right": return judge(got, lambda: True)
        made[who] = weights(out)
    return "right" if made["cats"] != made["dogs"] else ("silently wrong",
        "the cats' weights are released as dogs")


# ---- parameter files

SETTING = "settings: {quick: {steps: 2, attempts: 2, dtype: float32, distances: [mse], %s}}"
BAD_PARAMS = {
    "a key twice": "settings: {quick: {steps: 2, steps: 3, distances: [mse]}}", "octal": SETTING % "n: 010",
    "an alias bomb": "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{c}: &{c} [{','.join(['*' + p]*9)}]\n" for p, c in zip("abcdefgh",
        "bcdefghi")) + "settings: {quick: *i}",
    "a list": "- settings", "a text": "settings", "cut": "settings: {quick: {steps",
    "a tab": "settings:\n\tquick: {}",
    "numbers as distances": SETTING.replace("[mse]", "[1]") % "seed: 1",
    "a list as method": SETTING % "method: [lmd]",
    "negative steps": SETTING.replace("steps: 2", "steps: -1") % "seed: 1",
    "true as a number": SETTING % "n: true",
    "t0 is nan": SETTING % "t0: .nan", "t0 is infinite": SETTING % "t0: .inf",
    "eta is negative": SETTING % "eta: -1",
    "eta is nan": SETTING % "eta: .nan", "resample 0": SETTING % "resample: 0",
    "a huge seed": SETTING % "seed: 99999999999999999999",
    "a date": SETTING % "n: 2026-01-01", "a Python object": SETTING % "n: !!python/object/apply:os.getcwd []",
    "bytes": "settings: {quick: !!binary aGVsbG8=}", "a NUL": "settings: {quick: {steps: 2\0}}",
    "not UTF-8": b"settings: {\xff\xfe: 1}"}
BAD_TRAIN = {
    "layers: -1": "layers: -1", "factor 0": "factor: 0", "negative factor": "factor: -2",
    "width 0": "width: [0, 0]",
    "width of texts": "width: [a, b]", "width empty": "width: []", "batch 0": "batch: 0",
    "negative batch": "batch: -3",
    "lr nan": "lr: .nan", "lr negative": "lr: -1.0", "ema 2": "ema: 2.0", "dropout 2": "dropout: 2.0",
    "steps 0": "steps: 0",
    "warmup negative": "warmup: -1", "size 0": "size: 0", "channels 2": "channels: 2",
    "schedule a text": "schedule: vp",
    "beta negative": "schedule: {name: vp-linear, beta_min: -1.0}", "clip nan": "clip: .nan",
    "dtype unknown": "dtype: fp7"}


def with_params(text, args):
    def run():
        Path("own.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        got = command(*args, "--params", "own.yaml")
        return judge(got, lambda: "it was not refused")
    return run


def bad_training(line):
    key = line.partition(":")[0]
    entry = dict(size="16", width="[16, 16]", steps="20", batch="16", warmup="4",
        dtype='"no"') | {key: line.partition(": ")[2]}
    return "train: {tiny: {%s}}" % ", ".join(f"{k}: {v}" for k, v in entry.items())


# ---- foreign models

def foreign(config, change=None):
    "A diffusers folder with a tiny network and this scheduler"
    folder = Path("foreign")
    network = dict(sample_size=16, in_channels=1, out_channels=1, layers_per_block=1,
        block_out_channels=(16, 16), norm_num_groups=8,
                   down_block_types=("DownBlock2D",)*2, up_block_types=("UpBlock2D",)*2)
    torch.manual_seed(0)
    UNet2DModel(**network).save_pretrained(folder/"unet")
    (folder/"scheduler").mkdir()
    text = config if isinstance(config, (str, bytes)) else json.dumps(config)
    (folder/"scheduler/scheduler_config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    if change: change(folder)
    return folder


def ddpm(**given): return dict(DDPMScheduler().config) | {"_class_name": "DDPMScheduler"} | given

def edit(folder, **given):
    path = folder/"unet/config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | given), encoding="utf-8")

def part(name, **config):
    def add(folder):
        (folder/name).mkdir()
        (folder/name/"config.json").write_text(json.dumps(config), encoding="utf-8")
    return add

GOOD_MODELS = {"DDPM": ddpm(), "DDIM": dict(DDIMScheduler().config) | {"_class_name": "DDIMScheduler"},
               "v prediction": ddpm(prediction_type="v_prediction"),
               "cosine": ddpm(beta_schedule="squaredcos_cap_v2")}
BAD_MODELS = {
    "EDM": {"_class_name": "EDMEulerScheduler", "num_train_timesteps": 1000, "sigma_max": 80.,
    "sigma_min": .002},
    "flow matching": {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000,
    "shift": 1.},
    "consistency": {"_class_name": "CMStochasticIterativeScheduler", "num_train_timesteps": 40},
    "a flow under DPMSolver's name": ddpm(_class_name="DPMSolverMultistepScheduler", use_flow_sigmas=True,
    prediction_type="flow_prediction"),
    "an unknown class": ddpm(_class_name="MyScheduler"), "no class": {"num_train_timesteps": 1000},
    "an unknown prediction": ddpm(prediction_type="score2"),
    "eps with alpha(1) = 0": ddpm(rescale_betas_zero_snr=True),
    "negative betas": ddpm(trained_betas=[-.1]*1000), "beta above 1": ddpm(beta_end=3.),
    "no steps": ddpm(num_train_timesteps=0),
    "steps as text": ddpm(num_train_timesteps="many"), "a list": "[1, 2]", "cut": '{"_class_name": "DDPM',
    "empty": "", "null": "null"}
CHANGED_MODELS = {
    "a VAE beside it": part("vae", _class_name="AutoencoderKL"),
    "a VQ-VAE beside it": part("vqvae", _class_name="VQModel"),
    "a text encoder beside it": part("text_encoder", architectures=["CLIPTextModel"]),
    "sample_size null": lambda f: edit(f, sample_size=None), "sample_size not square": lambda f: edit(f,
    sample_size=[16, 24]),
    "two channels": lambda f: edit(f, in_channels=2), "a class of networks that is none": lambda f: edit(f,
    _class_name="UNet2DConditionModel"),
    "config.json empty": lambda f: (f/"unet/config.json").write_bytes(b""), "weights empty":
        lambda f: (f/"unet/diffusion_pytorch_model.safetensors").write_bytes(b""),
    "weights missing": lambda f: (f/"unet/diffusion_pytorch_model.safetensors").unlink()}


def model(config, change=None, good=False):
    def run():
        folder = foreign(config, change)
        got = command("score", "./pictures", "--model", folder, "--setting", "quick", "--out",
            "made.parquet", *CPU)
        outcome = judge(got, lambda: sane_scores("made.parquet") if good
            else "it is scored as if it were a DDPM")
        return ("silently wrong",
            f"a good model is refused: {outcome[1]}") if good and outcome[0] == "refused" else outcome
    return run


def marked():
    "A byte order mark before a good configuration: read, or refused"
    folder = foreign(b"\xef\xbb\xbf" + json.dumps(ddpm()).encode())
    return call(lambda: load_denoiser(folder), lambda made: True)


def device(args, name):
    def run():
        got = command(*args, "--device", name)
        return judge(got, lambda: "it runs on another device" if name != "cpu" else True)
    return run


def stray(variables, limit=60):
    "A command with variables of a launcher that is not there, as a real process"
    def run():
        try: done = subprocess.run([sys.executable, "-m", "lmd", *SCORE], env=os.environ | variables,
            capture_output=True, encoding="utf-8",
                                   timeout=limit)
        except subprocess.TimeoutExpired: return "hang"
        if done.returncode == 0: return "right"
        return ("traceback", done.stderr[-200:]) if "Traceback" in done.stderr else ("refused",
            done.stderr[-200:])
    return run


def inputs(about):
    kind = "pictures"
    for what in GOOD: yield Trial(kind, what, good_picture(what))
    for what in FLAT: yield Trial(kind, what, flat_picture(what))
    for what in BAD:
        for skip in (False, True): yield Trial(kind, f"no picture: {what}", bad_picture(what, skip))
    for what, (make, lines) in ODD.items(): yield Trial(kind, what, odd(what, make, lines))
    for words, options in {"--report": ("--report", "made.html"), "--maps": ("--fpr", ".5", "--maps", "maps"),
                           "score to a csv": ("score",)}.items():
        for name in NAMES: yield Trial("names of pictures", words, named(name, *options))
    for words, args in WRITERS.items():
        for place in places(): yield Trial("places to write to", words, written(args, place))
    yield Trial("places to write to", "a set's name that the user has taken", fetched_over)
    yield Trial("places to write to", "two trainings of one name", others_data)
    score = "score", "./pictures", "--model", "model", "--setting", "quick", "--out", "made.parquet", *CPU
    train = "train", "digits", "--config", "tiny", "--out", "made/model", *CPU
    for what, text in BAD_PARAMS.items(): yield Trial("parameter files", f"settings: {what}",
        with_params(text, score))
    for what, line in BAD_TRAIN.items(): yield Trial("parameter files", f"train: {what}",
        with_params(bad_training(line), train))
    for what, config in GOOD_MODELS.items(): yield Trial("foreign models", what, model(config, good=True))
    for what, config in BAD_MODELS.items(): yield Trial("foreign models", what, model(config))
    for what, change in CHANGED_MODELS.items(): yield Trial("foreign models", what, model(ddpm(), change))
    yield Trial("foreign models", "a byte order mark", marked)
    there = {"cpu"} | ({"cuda"} if torch.cuda.is_available() else set())
    commands = dict(train=train[:-2], score=SCORE[:-2], detect=DETECT[:-2],
                    reconstruct=("reconstruct", "digits", "--model", "model", "--setting", "quick", "--out",
                    "made.npz"),
                    verify=("verify", "inside.parquet", "--models", "."))
    for name, args in commands.items():
        for gadget in ("cuda", "cuda:7", "mps", "bogus", "", "CPU", "meta"):
            if gadget not in there: yield Trial("devices", f"lmd {name} --device", device(args, gadget))
    yield Trial("devices", "WORLD_SIZE of a launcher that is not there",
        stray({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": "29599", "LOCAL_RANK": "0"}, 240), 260)
