#!/usr/bin/env bash
# Clients as they are, across leaders that are killed: recipes of Curator, the Java client and kazoo,
# on the survivors and with all servers; what they notice, and that no lock is lost or held twice.
# usage: kills.sh zookeeper|RINGKEEPER_BINARY
#
# ROUNDS=N leaders are killed (5 without it). KEEP=DIR keeps data and logs.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$INTEROP_DIR/server.sh"

[ $# -eq 1 ] || die "usage: kills.sh zookeeper|RINGKEEPER_BINARY"
server_prepare "$1"
prepare_kazoo
prepare_curator

scratch=${KEEP:-$SERVER_SCRATCH/kills}
mkdir -p "$scratch"
export PYTHONPATH=$INTEROP_DIR:$INTEROP_DIR/ensemble PYTHONDONTWRITEBYTECODE=1 CURATOR_PATH
timeout 1200 "$KAZOO_PYTHON" "$INTEROP_DIR/kazoo/kills.py" "$1" "$INTEROP_CACHE/zookeeper" "$scratch" \
    "${ROUNDS:-5}"
