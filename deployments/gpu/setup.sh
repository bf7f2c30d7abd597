#!/usr/bin/env bash
# A Linux machine with an NVIDIA GPU. The driver must be there; the rest comes from packages.
# EXTRAS names what it builds, for example EXTRAS=onnxruntime,tensorrt.
set -euo pipefail
nvidia-smi >/dev/null || {
  echo "nvidia-smi does not run: install NVIDIA's driver first" >&2
  exit 1
}
exec "$(dirname "${BASH_SOURCE[0]}")/../setup_linux.sh" \
  gpu "fleet,${EXTRAS:-onnxruntime}" "${PYTHON:-python3}"
