#!/usr/bin/env bash
# JupyterLab on nbs/. Saved notebooks stay clean, git merges them by cells, and nothing is written into the home folder
set -euo pipefail
cd "$(dirname "$0")/.."
git config --local include.path ../.gitconfig 2>/dev/null || echo 'not a git repository: notebooks will be merged line by line'
own=$PWD/.venv/share/lab
export JUPYTER_CONFIG_DIR=$own JUPYTER_DATA_DIR=$own/data JUPYTER_RUNTIME_DIR=$own/runtime IPYTHONDIR=$own/ipython
export MPLCONFIGDIR=$own/matplotlib npm_config_cache=$own/npm JUPYTERLAB_SETTINGS_DIR=$own/settings JUPYTERLAB_WORKSPACES_DIR=$own/workspaces
exec jupyter lab nbs --config=scripts/jupyter_config.py "$@"
