#!/usr/bin/env bash
# A Jetson. Not yet run on one.
#
# JetPack 6 has Python 3.10, which will do. JetPack 5 has Python 3.8, which Prefect does not
# support: give another one, for example PYTHON=/usr/bin/python3.10 from the deadsnakes archive.
# TensorRT comes with JetPack and is used through its own tools, not installed here.
set -euo pipefail
test -f /etc/nv_tegra_release || {
  echo "/etc/nv_tegra_release is missing: this is no Jetson" >&2
  exit 1
}
exec "$(dirname "${BASH_SOURCE[0]}")/../setup_linux.sh" \
  jetson "fleet,${EXTRAS:-onnxruntime}" "${PYTHON:-python3.10}"
