"""Lift, Map, Detect: unsupervised out-of-distribution detection by diffusion inpainting.

What most programs need is here: `from lmd import LMD, load_denoiser`. A name is imported when it is
asked for, so that `import lmd` takes no time. Everything else is in the modules, one for each chapter.
"""
from importlib import import_module

__version__ = "0.2.0"
_places = {  # name -> its module; __init__.pyi says the same to editors and type checkers
    "LMD": "detector", "load_denoiser": "diffusion",
    "load": "data", "fetch": "data", "to_model": "data",
    "Checkerboard": "masking", "Center": "masking", "RandomPatch": "masking", "mask_from_name": "masking",
    "register_mask": "masking", "register_distance": "distance", "register_method": "settings",
    "Inpaint": "inpainting", "Denoise": "inpainting", "sample": "inpainting",
    "MSE": "distance", "SSIM": "distance", "LPIPS": "distance", "distances_from_names": "distance",
    "aggregate": "aggregation", "roc_auc": "evaluation", "evaluate": "evaluation",
    "load_params": "settings", "score_set": "scoring",
    "CalibratedDetector": "calibration", "conformal_p_values": "calibration",
    "open_calibrated": "calibration",
    "explain": "maps", "OutOfDomain": "estimator",
}
__all__ = [*_places]


def __getattr__(name):
    if name not in _places: raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals().setdefault(name, getattr(import_module(f"{__name__}.{_places[name]}"), name))


def __dir__(): return sorted([*globals(), *_places])
