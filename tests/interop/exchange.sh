#!/usr/bin/env bash
# A real ZooKeeper starts from what ringkeeper exports, and the other way round, again and again:
# the same znodes, stats, access lists, sessions.
# usage: exchange.sh RINGKEEPER_BINARY
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$INTEROP_DIR/server.sh"

[ $# -eq 1 ] || die "usage: exchange.sh RINGKEEPER_BINARY"
binary=$(realpath "$1")
need python3
server_prepare zookeeper
passed=0 failed=0

# Who may see everything: "super:secret". TTL znodes exist.
digest=$(printf 'super:secret' | openssl dgst -sha1 -binary | base64)
settings=(extendedTypesEnabled=true znode.container.checkIntervalMs=100
    "DigestAuthenticationProvider.superDigest=super:$digest")
work=$SERVER_SCRATCH/exchange
mkdir -p "$work"
state=$work/session

talk() { python3 "$INTEROP_DIR/exchange.py" "$SERVER_PORT" "$@"; }

# start SERVER NAME DIR [LINE...]: a server on the data in DIR.
start() {
    local server=$1 name=$2 data=$3
    shift 3
    server_start "$server" "$name" "${settings[@]}" "dataDir=$data" "$@"
}

# tool NAME DIR [ARGUMENTS]: a tool of ringkeeper on the data in DIR.
tool() {
    local name=$1 data=$2
    shift 2
    "$binary" "$name" --data-dir "$data" -D extendedTypesEnabled=true "$@" >"$work/report" ||
        die "$name failed"
}

# same TITLE WANTED FOUND: two dumps. The statistics of quotas have stats of their own, which each
# server changes when it starts.
same() {
    if diff <(grep -v zookeeper_stats "$2") <(grep -v zookeeper_stats "$3") >"$work/difference"; then
        passed=$((passed + 1))
        echo "ok $1"
    else
        failed=$((failed + 1))
        echo "FAILED $1"
        head -n 20 "$work/difference"
    fi
}

ours=$work/ours
start "$binary" ringkeeper "$ours"
talk fill "$state"
talk dump >"$work/wanted"
[ "$(wc -l <"$work/wanted")" -gt 300 ] || die "the tree is not there"
server_stop "$SERVER_PID"

for compression in none gz snappy; do
    tool export "$ours" --to "$work/$compression" --compression "$compression"
    start zookeeper "zookeeper-$compression" "$work/$compression"
    talk resume "$state"
    talk dump >"$work/found"
    same "a ZooKeeper starts from an export ($compression)" "$work/wanted" "$work/found"
    server_stop "$SERVER_PID"
done

# As a member of an ensemble, it needs to know its epochs.
tool export "$ours" --to "$work/member"
echo 1 >"$work/member/myid"
start zookeeper member "$work/member" initLimit=5 syncLimit=2 standaloneEnabled=false \
    "server.1=127.0.0.1:$(free_port):$(free_port)"
talk dump >"$work/found"
# Its znode of the configuration is its own.
for file in wanted found; do
    grep -v '^/zookeeper/config ' "$work/$file" >"$work/$file.member"
done
same "a member of an ensemble starts from an export" "$work/wanted.member" "$work/found.member"
server_stop "$SERVER_PID"

# To ringkeeper and back, in one directory.
data=$work/none
start zookeeper there "$data"
talk more /later
talk dump >"$work/wanted"
server_stop "$SERVER_PID"
tool import "$data"
start "$binary" import "$data"
talk resume "$state"
talk dump >"$work/found"
same "ringkeeper goes on with an import" "$work/wanted" "$work/found"
talk more /later-still
talk dump >"$work/wanted"
# A copy of the running server serves the same.
tool backup "$data" --to "$work/copy"
server_stop "$SERVER_PID"
start "$binary" copy "$work/copy"
talk dump >"$work/found"
same "a server starts from a backup" "$work/wanted" "$work/found"
server_stop "$SERVER_PID"
tool export "$data" --in-place
start zookeeper back "$data"
talk resume "$state"
talk dump >"$work/found"
same "the ZooKeeper goes on with its directory" "$work/wanted" "$work/found"
talk brief /brief
echo "ok a TTL znode goes when its time is over"
server_stop "$SERVER_PID"

echo "exchange: $((passed + 1)) passed, $failed failed"
[ $failed -eq 0 ]
