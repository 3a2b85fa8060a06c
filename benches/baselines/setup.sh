#!/bin/sh
# Installs the baselines of `boltzmap bench engine --baseline torch,jax` and `boltzmap bench physics --baseline openmm` into .venv at the
# repository's root.
# Needs Python 3.11 or newer with its venv module; torch.compile also needs a C++ compiler.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
"$python" -m venv "$root/.venv"
"$root/.venv/bin/python" -m pip install --upgrade pip
# The processor build of PyTorch is smaller than PyPI's default; its index can be named instead:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu benches/baselines/setup.sh
"$root/.venv/bin/python" -m pip install --requirement "$root/benches/baselines/requirements.txt"
"$root/.venv/bin/python" -c 'import torch, jax, openmm; print("PyTorch", torch.__version__, "JAX", jax.__version__, "OpenMM", openmm.__version__)'
