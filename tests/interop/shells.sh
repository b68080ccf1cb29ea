#!/usr/bin/env bash
# The C client's shell (Debian's zookeeper-bin) and ZooKeeper's own zkCli.
# usage: shells.sh zookeeper|RINGKEEPER_BINARY
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$INTEROP_DIR/server.sh"

[ $# -eq 1 ] || die "usage: shells.sh zookeeper|RINGKEEPER_BINARY"
cli=/usr/lib/zookeeper/bin/cli_mt
[ -x "$cli" ] || install_package zookeeper-bin
server_prepare zookeeper # zkCli is in its jars
passed=0 failed=0

verdict() {
    if [ "$1" = ok ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    echo "$1 $2"
}

# shell_start NAME COMMAND...: an interactive program whose input is ours and whose output is a file.
shell_start() {
    SHELL_OUT=$SERVER_SCRATCH/$1.out
    local input=$SERVER_SCRATCH/$1.in
    shift
    mkfifo "$input"
    "$@" <"$input" >"$SHELL_OUT" 2>&1 &
    SHELL_PID=$!
    SERVER_PIDS+=("$SHELL_PID")
    exec {SHELL_IN}>"$input"
    SHELL_SEEN=0
}

# shell_expect TITLE PATTERN...: each pattern, in this order, within what was printed since the last
# command; waits for the last one.
shell_expect() {
    local title=$1 deadline=$((SECONDS + 15)) since pattern line
    shift
    while :; do
        since=$(tail -c "+$((SHELL_SEEN + 1))" "$SHELL_OUT")
        line=0
        for pattern in "$@"; do
            line=$(printf '%s\n' "$since" | awk -v from="$line" -v pattern="$pattern" \
                'NR > from && $0 ~ pattern { print NR; exit }')
            [ -n "$line" ] || break
        done
        if [ -n "$line" ]; then
            verdict ok "$title"
            return
        fi
        if [ $SECONDS -ge $deadline ]; then
            verdict FAILED "$title: expected '$pattern' in"
            printf '%s\n' "$since" | tail -n 15
            return
        fi
        sleep 0.05
    done
}

shell_say() {
    SHELL_SEEN=$(stat -c %s "$SHELL_OUT")
    printf '%s\n' "$1" >&"$SHELL_IN"
}

shell_stop() {
    local deadline=$((SECONDS + 15))
    shell_say quit
    exec {SHELL_IN}>&-
    while kill -0 "$SHELL_PID" 2>/dev/null && [ $SECONDS -lt $deadline ]; do sleep 0.05; done
    if kill -0 "$SHELL_PID" 2>/dev/null; then
        verdict FAILED "$1 does not leave"
    else
        verdict ok "$1 leaves"
    fi
}

server_start "$1" shells extendedTypesEnabled=true znode.container.checkIntervalMs=100

shell_start c "$cli" "127.0.0.1:$SERVER_PORT"
shell_expect "C: session" 'SESSION_EVENT state = CONNECTED_STATE' 'Got a new session id'
shell_say 'create /c-shell'
shell_expect "C: create" '\[/c-shell\]: rc = 0' 'name = /c-shell'
shell_say 'create2 +s /c-shell/s-'
shell_expect "C: create2 sequential" 'rc = 0' 'name = /c-shell/s-0000000000' 'version=0'
shell_say 'create +es /c-shell/e-'
shell_expect "C: create ephemeral sequential" 'name = /c-shell/e-0000000001'
shell_say 'create /c-shell'
shell_expect "C: create twice" '\[/c-shell\]: rc = -110'
shell_say 'create +c /c-shell/container'
shell_expect "C: container" 'name = /c-shell/container'
shell_say 'create +t=60000 /c-shell/ttl'
shell_expect "C: ttl node" 'name = /c-shell/ttl'
shell_say 'get /c-shell'
shell_expect "C: get" '/c-shell: rc = 0' 'value_len = 3' 'new' 'version=0'
shell_say 'set /c-shell changed data'
shell_expect "C: set, and the watch that get left" 'CHANGED_EVENT.*for path /c-shell' 'rc = 0 Stat:' \
    'version=1'
shell_say 'ls2 /c-shell'
shell_expect "C: ls2" 'rc = 0' 's-0000000000|e-0000000001' 'aversion=0'
shell_say 'delete /c-shell/s-0000000000'
shell_expect "C: delete, and the watch that ls left" 'CHILD_EVENT.*for path /c-shell' \
    '/c-shell/s-0000000000: rc = 0'
shell_say 'wexists /c-shell/later'
shell_say 'create /c-shell/later'
shell_expect "C: the watch of a missing node" 'CREATED_EVENT.*for path /c-shell/later'
shell_say 'get /c-shell/nowhere'
shell_expect "C: get of nothing" '/c-shell/nowhere: rc = -101'
shell_say 'delete /c-shell'
shell_expect "C: delete of a parent" '/c-shell: rc = -111'
shell_say 'sync /c-shell'
shell_expect "C: sync" '\[/c-shell\]: rc = 0' 'name = /c-shell'
shell_say 'config'
shell_expect "C: config" '/zookeeper/config: rc = 0'
shell_say 'addauth digest alice:secret'
shell_say 'exists /c-shell'
shell_say 'ls /c-shell'
shell_expect "C: still there after addauth" '/c-shell: rc = 0' 'container|e-|later|ttl'
shell_stop "C"

jars=$INTEROP_CACHE/zookeeper
shell_start zkcli java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xmx256m -cp "$jars:$jars/*" \
    org.apache.zookeeper.ZooKeeperMain -server "127.0.0.1:$SERVER_PORT"
shell_expect "zkCli: session" 'SyncConnected'
shell_say 'create /cli "some data"'
shell_expect "zkCli: create" 'Created /cli'
shell_say 'get -s -w /cli'
shell_expect "zkCli: get" 'some data' 'cZxid = 0x' 'dataVersion = 0' 'dataLength = 9' 'numChildren = 0'
shell_say 'set -s /cli other'
shell_expect "zkCli: set and its watch" 'NodeDataChanged path:/cli|dataVersion = 1'
shell_say 'create -s -e /cli/seq x'
shell_expect "zkCli: create sequential ephemeral" 'Created /cli/seq0000000000'
shell_say 'create -c /cli/box'
shell_expect "zkCli: create container" 'Created /cli/box'
shell_say 'create -t 100 /cli/brief'
shell_expect "zkCli: create with a TTL" 'Created /cli/brief'
shell_say 'ls -R /cli'
shell_expect "zkCli: ls -R" '^/cli$' '^/cli/box$' '^/cli/seq0000000000$'
shell_say 'stat /cli'
shell_expect "zkCli: stat" 'cversion = ' 'ephemeralOwner = 0x0' 'numChildren = '
shell_say 'setquota -n 10 /cli'
shell_say 'setquota -b 1000 /cli'
shell_say 'listquota /cli'
shell_expect "zkCli: quota" 'quota for /cli count=10,bytes=1000' 'stat for /cli count='
shell_say 'delquota /cli'
shell_say 'addauth digest alice:secret'
shell_say 'setAcl /cli auth:alice:secret:cdrwa'
shell_say 'getAcl /cli'
shell_expect "zkCli: access list" "digest,'alice:aYXlLOpEooaV1cRAvUL1fp9Qt7E=" 'cdrwa'
shell_say 'whoami'
shell_expect "zkCli: whoami" 'digest: alice'
shell_say 'getEphemerals'
shell_expect "zkCli: ephemerals" '/cli/seq0000000000'
shell_say 'getAllChildrenNumber /'
shell_expect "zkCli: number of all children" '^[0-9]+$'
shell_say 'addWatch -m PERSISTENT_RECURSIVE /cli'
shell_say 'create /cli/deep'
shell_expect "zkCli: recursive watch" 'NodeCreated path:/cli/deep'
shell_say 'removewatches /cli'
shell_say 'sync /cli'
shell_expect "zkCli: sync" 'Sync is OK'
shell_say 'config'
shell_say 'reconfig -remove 1'
shell_expect "zkCli: reconfig" 'reconfig|Reconfig|KeeperErrorCode'
shell_say 'delete /cli'
shell_expect "zkCli: delete of a parent" 'Node not empty: /cli'
shell_say 'deleteall /cli'
shell_say 'get /cli'
shell_expect "zkCli: get of nothing" 'does not exist: /cli|NoNode for /cli'
shell_stop "zkCli"

echo "shells: $passed passed, $failed failed"
[ $failed -eq 0 ]
