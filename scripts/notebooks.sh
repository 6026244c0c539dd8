#!/usr/bin/env bash
# run all chapters and keep their outputs
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 IN_TEST=1     # as in a test, the last cell of a chapter exports nothing
chapters=(nbs/[0-9]*.ipynb nbs/methods/*.ipynb nbs/study/*.ipynb)
for notebook in "${chapters[@]}" nbs/index.ipynb; do
  jupyter nbconvert --to notebook --execute --inplace --log-level ERROR "$notebook"
done
# the state of progress bars has random ids
python -c 'import nbformat, sys
for path in sys.argv[1:]:
    notebook = nbformat.read(path, 4)
    if notebook.metadata.pop("widgets", None): nbformat.write(notebook, path)' "${chapters[@]}"
nbdev_clean
