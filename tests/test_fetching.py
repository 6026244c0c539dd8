"`make data` in a clone without a mirror: the official addresses are those of a server in this process."
import gzip
import io
import os
import pickle
import struct
import tarfile
import threading
from dataclasses import replace
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from scipy.io import savemat

from lmd import sources
from lmd.cli import main
from lmd.data import load
from lmd.files import arrays_md5, read_npz
from lmd.sets import registry

ROOT = Path(__file__).resolve().parents[1]
LISTED = [Path(out["path"]).name for out in yaml.safe_load((ROOT / "data.dvc").read_text())["outs"]]
NAMES = ["digits"] + [name for name in LISTED if registry[name].files]      # of those made on the spot, one
MIRROR = os.environ.get("LMD_MIRROR")


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.tobytes(), 1)


def mat(images):
    "MATLAB's file of images (N, 32, 32, 3), and of as many labels"
    file = io.BytesIO()
    content = {"X": images.transpose(1, 2, 3, 0), "y": np.ones((len(images), 1), np.uint8)}
    savemat(file, content, do_compression=True)
    return file.getvalue()


def batches(folder, names):
    "CIFAR's archive of pickled batches, four images each"
    archive = io.BytesIO()
    batch = {b"data": np.arange(4 * 3072, dtype=np.uint16).astype(np.uint8).reshape(4, -1),
             b"labels": [0, 1, 2, 3]}
    content = pickle.dumps(batch, protocol=3).replace(b"numpy._core", b"numpy.core")
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue(), md5(content).hexdigest()


def small_files():
    "A small file for each official one, by name, and the md5 of a member of CIFAR's archives"
    numbers = np.arange(7100, dtype=np.uint16)
    files = {"train-images-idx3-ubyte.gz": idx(np.broadcast_to(numbers.astype(np.uint8)[:, None, None],
                                                               (7100, 28, 28)).copy()),
             "train-labels-idx1-ubyte.gz": idx((numbers % 10).astype(np.uint8)),
             "t10k-images-idx3-ubyte.gz": idx(np.zeros((5, 28, 28), np.uint8)),
             "t10k-labels-idx1-ubyte.gz": idx(np.zeros(5, np.uint8))}
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    files["cifar-10-python.tar.gz"], member = batches("cifar-10-batches-py", names)
    files["cifar-100-python.tar.gz"], _ = batches("cifar-100-python", ["train", "test"])
    return files, member


def crops(n): return np.full((n + 5, 32, 32, 3), n % 256, np.uint8)


@pytest.fixture
def addresses(monkeypatch):
    "Let every official address be one of a server here; returns what is served and what was asked for"
    served, asked = {}, []

    class Server(BaseHTTPRequestHandler):
        def log_message(self, *args): pass

        def do_GET(self):
            name, part = self.path.rsplit("/", 1)[1], self.headers["Range"]
            asked.append((name, part))
            if name not in served: return self.send_error(404)
            first, _, last = (part or "bytes=0-")[6:].partition("-")
            content = served[name][int(first) : int(last) + 1 if last else None]
            self.send_response(206 if part else 200)
            self.send_header("Content-Length", len(content))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    files, member = small_files()
    served |= files

    def here(file):
        if file is None: return None
        name = file.name.rsplit("/", 1)[-1]
        return replace(file, archive=here(file.archive), whole=here(file.whole),
                       md5=md5(files[name]).hexdigest() if name in files else member if file.archive
                       else file.md5,
                       url=file.url and f"http://127.0.0.1:{server.server_port}/{name}")

    for name in NAMES:
        record = registry[name]
        monkeypatch.setitem(registry, name, replace(record, files=tuple(map(here, record.files))))
    monkeypatch.delenv("LMD_MIRROR", raising=False)
    yield served, asked
    server.shutdown()
    server.server_close()


def fetch(root, *names):
    return CliRunner().invoke(main, ["data", "fetch", "--skip-unavailable", *names, "--root", str(root)])


def test_a_clone_without_a_mirror_gets_every_set_with_an_address(addresses, monkeypatch, tmp_path):
    served, asked = addresses
    parts = {part: (n, arrays_md5({"images": crops(n)[:n]})) for part, (n, _) in sources._svhn1k.items()}
    monkeypatch.setattr(sources, "_svhn1k", parts)
    for part, (n, _) in parts.items(): served[f"{part}_32x32.mat"] = mat(crops(n)) + bytes(10**6)
    assert "lmd data fetch --skip-unavailable $$(sed -n 's|^- path: data/||p' data.dvc)" in \
        (ROOT / "Makefile").read_text()

    got = fetch(tmp_path, *NAMES)
    without = {"tinyimagenet32", "faces64", "natural64"}
    assert got.exit_code == 0, got.output
    assert [Path(line).name for line in got.stdout.split()] == [n for n in NAMES if n not in without]
    assert {line.split(",")[0] for line in got.stderr.splitlines() if "left out" in line} == \
        {f"left out: {name}" for name in without}
    assert {name: part for name, part in asked if part} == \
        {"train_32x32.mat": "bytes=0-3499999", "extra_32x32.mat": "bytes=0-599999"}

    assert len(load("svhn1k", root=tmp_path)) == 1083 + 181
    assert len(load("kmnist7k", "train", root=tmp_path)) == 7011 - 700
    assert load("cifar10", root=tmp_path)[:].shape == (4, 32, 32, 3)


def test_a_set_that_should_be_there_is_an_error(addresses, tmp_path):
    served, asked = addresses
    served.clear()
    got = fetch(tmp_path, *NAMES)
    for name in ("mnist", "fashionmnist", "kmnist7k", "cifar10", "cifar100", "svhn1k"):
        assert f"{name}: cannot get" in got.stderr and not (tmp_path / name).exists()
    assert got.exit_code == 1 and "left out: faces64" in got.stderr and (tmp_path / "digits").is_dir()


def test_crops_of_svhn_are_those_of_its_files(addresses, tmp_path):
    if not MIRROR or not Path(MIRROR, "data/svhn/train-first-1083.npz").exists():
        pytest.skip("SVHN's crops are not in $LMD_MIRROR")
    served, _ = addresses
    for part, (n, _) in sources._svhn1k.items():
        images = read_npz(Path(MIRROR, f"data/svhn/{part}-first-{n}.npz"))["images"]
        served[f"{part}_32x32.mat"] = mat(np.concatenate([images, images]))       # as if it went on
    assert fetch(tmp_path / "cut", "svhn1k").exit_code == 0
    assert fetch(tmp_path / "mirror", "svhn1k", "--mirror", MIRROR).exit_code == 0
    cut, known = (tmp_path / place / "svhn1k" for place in ("cut", "mirror"))
    for name in ("test.npy", "meta.json"): assert (cut / name).read_bytes() == (known / name).read_bytes()
