#!/usr/bin/env bash
# What the set-up of all Linux machines has in common; called by cpu/, gpu/ and jetson/setup.sh:
#   setup_linux.sh POOL EXTRAS PYTHON
# Makes the virtual environment, the state folder, a user without a login, and the service.
set -euo pipefail

pool=$1 extras=$2 python=$3
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
home=/var/lib/engineworks
settings=/etc/engineworks/worker.env

if [ "$(id -u)" -ne 0 ]; then
  echo "run it as root: it makes a user and a service" >&2
  exit 1
fi
if [ ! -s "$settings" ]; then
  echo "$settings is missing; make it from deployments/worker.env.example, mode 600" >&2
  exit 1
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
  echo "$python is older than Python 3.10, which Prefect needs" >&2
  exit 1
}

id engineworks >/dev/null 2>&1 ||
  useradd --system --home-dir "$home" --create-home --shell /usr/sbin/nologin engineworks
# GPU devices belong to these groups where they exist.
for group in video render; do
  if getent group "$group" >/dev/null; then usermod --append --groups "$group" engineworks; fi
done
runuser -u engineworks -- test -r "$checkout/flows/worker.py" || {
  echo "the user engineworks cannot read $checkout: put it where all may read, such as /opt" >&2
  exit 1
}
install -d -o engineworks -g engineworks -m 750 "$home"

test -x "$home/venv/bin/python" || "$python" -m venv "$home/venv"
"$home/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  "${checkout}[${extras}]"

sed -e "s|@POOL@|$pool|g" -e "s|@CHECKOUT@|$checkout|g" -e "s|@HOME@|$home|g" \
  "$checkout/deployments/engineworks-worker.service" \
  >/etc/systemd/system/engineworks-worker.service
systemctl daemon-reload
systemctl enable engineworks-worker.service
systemctl restart engineworks-worker.service
echo "the worker runs: journalctl -u engineworks-worker -f"
