#!/usr/bin/env bash
# make .venv from requirements.lock, with Python 3.11 or 3.12; every package must have one of the hashes there
set -euo pipefail
cd "$(dirname "$0")/.."
for python in python3.11 python3.12 python3 none; do
  [ $python != none ] || { echo 'Python 3.11 or 3.12 is needed, and neither is on the PATH' >&2; exit 1; }
  "$python" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && break
done
"$python" -m venv .venv || { "$python" -m venv --without-pip .venv && "$python" -m pip --python .venv/bin/python install pip; }
.venv/bin/python -m pip install --disable-pip-version-check --require-hashes -r requirements.lock
.venv/bin/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
touch .venv/.stamp
