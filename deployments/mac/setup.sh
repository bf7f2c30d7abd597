#!/usr/bin/env bash
# A Mac. Not yet run on one. Runs as a launchd agent of the user who calls it.
set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
home="$HOME/Library/Application Support/engineworks"
settings="$home/worker.env"
label=engineworks.worker
agent="$HOME/Library/LaunchAgents/$label.plist"
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
  echo "$python is older than Python 3.10, which Prefect needs" >&2
  exit 1
}
mkdir -p "$home" "$HOME/Library/LaunchAgents"
if [ ! -s "$settings" ]; then
  install -m 600 "$checkout/deployments/worker.env.example" "$settings"
  echo "fill in $settings and run this again" >&2
  exit 1
fi
test -x "$home/venv/bin/python" || "$python" -m venv "$home/venv"
"$home/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  "${checkout}[fleet,${EXTRAS:-coreml}]"

sed -e "s|@CHECKOUT@|$checkout|g" -e "s|@HOME@|$home|g" \
  "$checkout/deployments/mac/$label.plist" >"$agent"
launchctl bootout "gui/$(id -u)/$label" 2>/dev/null || true
launchctl bootstrap "gui/$(id -u)" "$agent"
echo "the worker runs; its log: $home/worker.log"
