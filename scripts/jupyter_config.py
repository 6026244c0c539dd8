"What `make lab` tells Jupyter: a notebook is cleaned as `nbdev_clean` does whenever it is saved."
from nbdev.clean import _nbdev_clean

CONTROLS = "application/vnd.jupyter.widget-view+json"      # live in a kernel, and get a new name each time


def clean(model, **kwargs):
    "Clean what is saved. nbdev's own hook also opens the file, in a folder where it is not"
    if model["type"] != "notebook" or model["content"]["nbformat"] != 4: return
    _nbdev_clean(model["content"])
    for cell in model["content"]["cells"]:
        if "outputs" in cell:
            cell["outputs"] = [out for out in cell["outputs"] if CONTROLS not in out.get("data", {})]


c.FileContentsManager.pre_save_hook = clean  # noqa: F821, Jupyter defines c
