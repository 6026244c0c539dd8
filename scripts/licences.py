"""Write LICENCES.md: the licences of data sets, weights and packages.

Sets say theirs in the registry, weights in their model cards; pip-licenses reads those of the packages
that are installed here from their metadata."""
import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lmd.data import registry
from lmd.weights import pretrained

ROOT = Path(__file__).resolve().parents[1]


def needed(name, extras, found):
    "Add the packages that a package with some of its extras needs to `found`, with their own extras"
    try: wanted = map(Requirement, requires(name) or [])
    except PackageNotFoundError: return found
    for requirement in wanted:
        key = canonicalize_name(requirement.name), *sorted(requirement.extras)
        here = not requirement.marker or any(requirement.marker.evaluate({"extra": e}) for e in ("", *extras))
        if here and key not in found:
            found.add(key)
            needed(key[0], requirement.extras, found)
    return found


def packages():
    "(name, licence, who needs it) of each package of requirements.lock that is installed"
    listed = subprocess.run([Path(sys.executable).with_name("pip-licenses"), "--from=mixed",
        "--format=json"], check=True,
                            capture_output=True, encoding="utf-8").stdout
    locked = {canonicalize_name(m[1]) for m in re.finditer(r"^([\w.-]+)==",
        (ROOT/"requirements.lock").read_text(encoding="utf-8"), re.M)}
    library = {name for name, *_ in needed("lmd", (), set())}
    for line in json.loads(listed):
        name = canonicalize_name(line["Name"])
        if name in locked: yield name, line["License"], "library" if name in library else "development"


def weights():
    "(checkpoint, licence) of each model card"
    for card in sorted(ROOT.glob("checkpoints/*/README.md")):
        found = re.search(r"^\| licence \| (.*) \|$", card.read_text(encoding="utf-8"), re.M)
        yield card.parent.name, found[1] if found else "Apache-2.0, as the repository"


def table(head, rows): return "\n".join(["| " + " | ".join(r) + " |"
    for r in (head, ["---"]*len(head), *map(list, rows))])


def main():
    sets = [(s.name, s.licence, s.citation) for s in registry.values()]
    text = f"""# Licences

`lmd` is under the [Apache License 2.0](LICENSE). What it uses and brings along has licences of its own. \
This file is made by `python scripts/licences.py`.

## Data sets

None is part of the repository; `lmd data fetch` gets them. Some allow no commercial use.

{table(["set", "licence", "source"], sets)}

## Weights

They are in `checkpoints/`. The linear weights of LPIPS come with the package `lpips`.

{table(["checkpoint", "licence"], weights())}

These come from others, on first need or as a file that is named. They were trained on ImageNet, which is \
for non-commercial research.

{table(["weights", "licence"], ((about.what, about.licence) for about in pretrained.values()))}

## Packages

Those of `requirements.lock` on Linux, as their metadata say it (pip-licenses). `library`: a user of `pip \
install lmd` gets it; `development`: the extras `study` and `dev`.

{table(["package", "licence", "needed by"], sorted(packages()))}
"""
    (ROOT/"LICENCES.md").write_text(text, encoding="utf-8")


if __name__ == "__main__": main()
