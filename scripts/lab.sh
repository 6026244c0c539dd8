#!/usr/bin/env bash
# JupyterLab on nbs/. Saved notebooks stay clean, git merges them by cells, and the home folder is not touched
set -euo pipefail
cd "$(dirname "$0")/.."
git config --local include.path ../.gitconfig 2>/dev/null ||
  echo 'not a git repository: notebooks will be merged line by line'
own=$PWD/.venv/share/lab
export JUPYTER_CONFIG_DIR=$own JUPYTER_DATA_DIR=$own/data JUPYTER_RUNTIME_DIR=$own/runtime
export JUPYTERLAB_SETTINGS_DIR=$own/settings JUPYTERLAB_WORKSPACES_DIR=$own/workspaces
export IPYTHONDIR=$own/ipython MPLCONFIGDIR=$own/matplotlib npm_config_cache=$own/npm
exec jupyter lab nbs --config=scripts/jupyter_config.py "$@"
