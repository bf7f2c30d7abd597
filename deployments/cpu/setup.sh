#!/usr/bin/env bash
# A Linux machine that builds for its CPU: ONNX Runtime and OpenVINO, no torch.
set -euo pipefail
extras=fleet,onnxruntime,openvino
# One that reaches MLflow completes and benchmarks for all (docs/fleet.md).
if grep -qs '^MLFLOW_TRACKING_URI=.' /etc/engineworks/worker.env; then
  extras=$extras,registry
fi
exec "$(dirname "${BASH_SOURCE[0]}")/../setup_linux.sh" cpu "$extras" "${PYTHON:-python3}"
