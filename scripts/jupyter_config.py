"What `make lab` tells Jupyter: a notebook is cleaned as `nbdev_clean` does whenever it is saved."
from nbdev.clean import clean_jupyter

c.FileContentsManager.pre_save_hook = clean_jupyter  # noqa: F821, Jupyter defines c
