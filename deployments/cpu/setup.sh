#!/usr/bin/env bash
# A Linux machine that builds for its CPU: ONNX Runtime and OpenVINO, no torch.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/../setup_linux.sh" \
  cpu fleet,onnxruntime,openvino "${PYTHON:-python3}"
