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
small) rounds=5 operations=10000 kills=4 ;; # each configuration once
full) rounds=25 operations=40000 kills=20 ;;
*) die "$usage" ;;
esac

logs=$(mktemp -d "${TMPDIR:-/tmp}/ringkeeper-interop.XXXXXX")
passed=0 failed=()
# run NAME COMMAND...: one suite. What clients say of each connection that they lose is left out.
run() {
    local name=$1 start=$SECONDS
    shift
    say "$name"
    if "$@" 2>&1 | grep --line-buffered -v -E 'Connection dropped|Transition to CONNECTING' |
        tee "$logs/$name"; [ "${PIPESTATUS[0]}" -eq 0 ]; then
        passed=$((passed + 1))
    else
        failed+=("$name")
    fi
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
# Last, so that it is found at once: what failed, and how.
for name in "${failed[@]}"; do
    say "FAILED $name; the end of what it said:"
    tail -n 60 "$logs/$name"
done
# And what nobody has tried.
grep -h '^skipped: ' "$logs"/* || true
echo "interop: $passed passed, ${#failed[@]} failed${failed[*]:+: ${failed[*]}}"
[ ${#failed[@]} -eq 0 ] || exit 1
rm -r "$logs"
