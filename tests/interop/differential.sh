#!/usr/bin/env bash
# The same random requests to two servers; replies, zxids and events have to be the same.
# usage: differential.sh LEFT RIGHT (each `zookeeper` or a ringkeeper binary)
#
# ROUNDS (5) seeds from SEED (1) on, OPS (20000) requests each, every round on fresh servers with one
# of the configurations below. A round that failed is repeated by SEED=its seed ROUNDS=1.
# DIFFERENTIAL is the tester's binary; without it, it is built.
#
# Where requests are pipelined, two real servers may differ from each other, as timing has it. So
# such a round gets TRIES (3); what is different in ringkeeper is so each time.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$INTEROP_DIR/server.sh"

[ $# -eq 2 ] || die "usage: differential.sh LEFT RIGHT"
if [ -n "${DIFFERENTIAL:-}" ]; then
    differential=$(realpath "$DIFFERENTIAL")
    [ -x "$differential" ] || die "'$DIFFERENTIAL' is no program"
else
    root=$(cd "$INTEROP_DIR/../.." && pwd)
    cargo build --quiet --release --manifest-path "$root/Cargo.toml" -p ringkeeper-tests --bin differential
    differential=${CARGO_TARGET_DIR:-$root/target}/release/differential
fi

# The real server's cache of replies can tell old quota usage, its timers would delete containers
# and TTL nodes at times of its own, and flushing is not what is compared here.
common=(
    maxResponseCacheSize=0
    maxGetChildrenResponseCacheSize=0
    znode.container.checkIntervalMs=86400000
    forceSync=no
    # No session may expire between two steps, however slow the machine.
    minSessionTimeout=600000
    maxSessionTimeout=3600000
    # "super:test"
    DigestAuthenticationProvider.superDigest=super:D/InIHSb7yEEbrWz8b9l71RjZJU=
)

# The real server judges hard quotas by what is applied, not by what is ahead in the pipeline:
# only one request at a time has one right answer.
# So it does with sequence numbers that overflow.
configure() {
    pipelined=yes known='' extra=(extendedTypesEnabled=true)
    case $(($1 % 5)) in
    0) extra=() ;;
    1 | 2) ;;
    3)
        extra+=(enforceQuota=true)
        pipelined=no
        ;;
    4)
        known=$(printf '/%s ' c{0..9} v{0..9})
        pipelined=no
        ;;
    esac
}

# prepare SERVER DIR: the state that SERVER begins with, when it is not to be empty.
prepare() {
    [ -n "$known" ] || return 0
    python3 "$INTEROP_DIR/counters.py" "$2/data"
    [ "$1" = zookeeper ] || "$1" import --data-dir "$2/data" >&2
}

# compare ROUND SEED: one run of a seed on fresh servers.
compare() {
    local seed=$2 left_name="left$1" right_name="right$1" status=0
    configure "$seed"
    prepare "$LEFT_SERVER" "$SERVER_SCRATCH/$left_name"
    server_start "$LEFT_SERVER" "$left_name" "${common[@]}" "${extra[@]}"
    local left=$SERVER_PORT left_pid=$SERVER_PID left_log=$SERVER_LOG
    prepare "$RIGHT_SERVER" "$SERVER_SCRATCH/$right_name"
    server_start "$RIGHT_SERVER" "$right_name" "${common[@]}" "${extra[@]}"
    local right=$SERVER_PORT right_pid=$SERVER_PID right_log=$SERVER_LOG
    LEFT=127.0.0.1:$left LEFT_NAME="left (${LEFT_SERVER##*/})" RIGHT=127.0.0.1:$right \
        RIGHT_NAME="right (${RIGHT_SERVER##*/})" SEED=$seed OPS=${OPS:-20000} PIPELINED=$pipelined \
        KNOWN=$known "$differential" || status=$?
    if [ $status -ne 0 ]; then
        say "configuration of seed $seed: ${extra[*]} pipelined=$pipelined known=$known"
        grep -a -h -E 'ERROR|panicked' "$left_log" "$right_log" |
            grep -a -v 'Failed to process\|Dumping' | tail -n 5 >&2 || true
    fi
    server_stop "$left_pid"
    server_stop "$right_pid"
    rm -rf "$SERVER_SCRATCH/$left_name" "$SERVER_SCRATCH/$right_name"
    return $status
}

LEFT_SERVER=$1 RIGHT_SERVER=$2
passed=0 repeated=0 failed=0
seed=${SEED:-1}
for ((round = 0; round < ${ROUNDS:-5}; round++, seed++)); do
    for ((try = 1; ; try++)); do
        if compare "$round.$try" "$seed"; then
            passed=$((passed + 1))
            break
        elif [ $try -lt "${TRIES:-3}" ] && [ "$pipelined" = yes ]; then
            say "seed $seed once more: a real difference is there again"
            repeated=$((repeated + 1))
        else
            failed=$((failed + 1))
            break
        fi
    done
done
echo "differential: $passed passed ($repeated repeated), $failed failed"
[ $failed -eq 0 ]
