#!/usr/bin/env bash
# make .venv from requirements.lock, with Python 3.11 or 3.12; every package must have a hash that is there.
# CPU=1 takes PyTorch from its index for CPUs and leaves CUDA out, which saves 4 of 6 GB
set -euo pipefail
cd "$(dirname "$0")/.."
for python in python3.11 python3.12 python3 none; do
  [ $python != none ] || { echo 'Python 3.11 or 3.12 is needed, and neither is on the PATH' >&2; exit 1; }
  "$python" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && break
done
"$python" -m venv .venv ||
  { "$python" -m venv --without-pip .venv && "$python" -m pip --python .venv/bin/python install pip; }
install() { .venv/bin/python -m pip install --disable-pip-version-check "$@"; }
if [ "${CPU:-}" = 1 ]; then
  install --no-deps --index-url https://download.pytorch.org/whl/cpu \
    $(grep -oE '^torch(vision)?==[0-9.]+' requirements.lock)
  install --no-deps --require-hashes -r requirements-cpu.lock
else
  install --require-hashes -r requirements.lock
fi
install --no-deps --no-build-isolation -e .
touch .venv/.stamp
