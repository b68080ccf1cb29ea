#!/usr/bin/env bash
# Ensembles of ringkeepers that lose servers (kill -9, SIGSTOP) and links (in network namespaces)
# again and again under load, and a checker of all that clients were told.
# usage: faults.sh RINGKEEPER_BINARY [SCENARIO...]
#
# BUDGET=full plays each scenario of faults/main.py for five minutes (the default, small, for 12 s;
# a number is seconds). On the loopback, kill -9 and SIGSTOP of each role come first, however long
# they take.
# SEED=N draws other faults. KEEP=DIR keeps data, logs and histories there; without it they stay
# only where something failed. Where there can be no network namespaces, the scenarios that need
# them are skipped, and a last line says so.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ $# -ge 1 ] || die "usage: faults.sh RINGKEEPER_BINARY [SCENARIO...]"
binary=$(realpath "$1")
shift
need python3
scratch=${KEEP:-$(mktemp -d "${TMPDIR:-/tmp}/ringkeeper-faults.XXXXXX")}
mkdir -p "$scratch"
export PYTHONPATH=$INTEROP_DIR:$INTEROP_DIR/ensemble:$INTEROP_DIR/faults PYTHONDONTWRITEBYTECODE=1
python3 "$INTEROP_DIR/faults/test_checker.py"
if ! python3 "$INTEROP_DIR/faults/main.py" "$binary" "$scratch" "${BUDGET:-small}" \
    "${SEED:-$(date +%s)}" "$@"; then
    say "data, logs and histories are in $scratch"
    exit 1
fi
[ -n "${KEEP:-}" ] || rm -rf "$scratch"
