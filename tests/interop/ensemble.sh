#!/usr/bin/env bash
# Ensembles in which ringkeeper and the real ZooKeeper work together: who leads, who follows, who
# observes; servers that missed writes, lost their data, or logged what nobody else has; learners
# that are slow, or that join under load; settings of ensembles; moves from one kind to the other
# under load; leaders that are killed.
# usage: ensemble.sh RINGKEEPER_BINARY [SCENARIO...]
#
# BUDGET=full plays all of it (the default, small, takes two to three minutes). A SCENARIO is the
# name of a function that ensemble/scenarios.py lists. KEEP=DIR keeps data and logs of all servers.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$INTEROP_DIR/server.sh"

[ $# -ge 1 ] || die "usage: ensemble.sh RINGKEEPER_BINARY [SCENARIO...]"
binary=$(realpath "$1")
shift
server_prepare zookeeper
server_prepare "$binary"
prepare_kazoo

scratch=${KEEP:-$SERVER_SCRATCH/ensemble}
mkdir -p "$scratch"
export PYTHONPATH=$INTEROP_DIR:$INTEROP_DIR/ensemble PYTHONDONTWRITEBYTECODE=1
"$KAZOO_PYTHON" "$INTEROP_DIR/ensemble/main.py" "$binary" "$INTEROP_CACHE/zookeeper" "$scratch" \
    "${BUDGET:-small}" "$@"
