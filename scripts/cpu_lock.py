"requirements-cpu.lock: requirements.lock without PyTorch and what it needs of CUDA. --print writes nothing."
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAD = """# Made by `python scripts/cpu_lock.py`: requirements.lock without PyTorch, which comes from
# PyTorch's index for CPUs, and without CUDA. Not tested: that index could not be reached here.
"""


def cpu_lock():
    entries = re.split(r"^(?=\w)", (ROOT / "requirements.lock").read_text(encoding="utf-8"), flags=re.M)
    names = [re.split(r"[= ]", e, maxsplit=1)[0] for e in entries]
    kept = [e for name, e in zip(names, entries) if not e.startswith("#") and name and not left_out(name)]
    return HEAD + "".join(kept)


def left_out(name): return name in ("torch", "torchvision", "triton") or name.startswith(("nvidia-", "cuda-"))


if __name__ == "__main__":
    if "--print" in sys.argv: print(cpu_lock(), end="")
    else: (ROOT / "requirements-cpu.lock").write_text(cpu_lock(), encoding="utf-8")
