#!/usr/bin/env bash
# Every client and the comparison with a real ZooKeeper, against one ringkeeper binary.
# usage: run-all.sh RINGKEEPER_BINARY [--budget small|full]
#
# small (the default) takes a few minutes; full compares a million requests.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage="usage: run-all.sh RINGKEEPER_BINARY [--budget small|full]"
[ $# -ge 1 ] || die "$usage"
binary=$(realpath "$1")
budget=small
if [ $# -gt 1 ]; then
    [ $# -eq 3 ] && [ "$2" = --budget ] || die "$usage"
    budget=$3
fi
case $budget in
small) rounds=8 operations=10000 kills=4 ;;
full) rounds=25 operations=40000 kills=20 ;;
*) die "$usage" ;;
esac

passed=0 failed=0
run() {
    local name=$1 start=$SECONDS
    shift
    say "$name"
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    say "$name took $((SECONDS - start)) s"
}

run shells "$INTEROP_DIR/shells.sh" "$binary"
run go "$INTEROP_DIR/go.sh" "$binary"
run curator "$INTEROP_DIR/curator.sh" "$binary"
run exchange "$INTEROP_DIR/exchange.sh" "$binary"
run ensemble env BUDGET="$budget" "$INTEROP_DIR/ensemble.sh" "$binary"
run faults env BUDGET="$budget" "$INTEROP_DIR/faults.sh" "$binary"
run kills env ROUNDS="$kills" "$INTEROP_DIR/kills.sh" "$binary"
run differential env ROUNDS="${ROUNDS:-$rounds}" OPS="${OPS:-$operations}" \
    "$INTEROP_DIR/differential.sh" zookeeper "$binary"
run kazoo "$INTEROP_DIR/kazoo.sh" "$binary"
run kazoo-ensemble env INTEROP_SERVERS=3 "$INTEROP_DIR/kazoo.sh" "$binary"
echo "interop: $passed passed, $failed failed"
[ $failed -eq 0 ]
