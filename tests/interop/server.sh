# shellcheck shell=bash
# Starts and stops a server for the interop scripts. Source lib.sh first.
#
# SERVER says which one: `zookeeper` (the real one, fetched when needed) or the path of a ringkeeper
# binary. Servers listen on loopback only, on a free port; whatever was started is stopped and its
# data removed when the script ends, however it ends. RINGKEEPER_FLAGS are more arguments for every
# ringkeeper that is started, `--backend epoll` say.

SERVER_SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/ringkeeper-interop.XXXXXX")
SERVER_PIDS=()
trap server_cleanup EXIT
trap 'exit 130' INT TERM

server_cleanup() {
    local status=$? pid
    trap - EXIT
    for pid in "${SERVER_PIDS[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
    for pid in "${SERVER_PIDS[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$SERVER_SCRATCH"
    exit "$status"
}

free_port() {
    need python3
    python3 "$INTEROP_DIR/free_port.py"
}

# server_prepare SERVER: checks or fetches what server_start will run, so that it starts at once.
server_prepare() {
    if [ "$1" = zookeeper ]; then
        "$INTEROP_DIR/get-zookeeper.sh" "$INTEROP_CACHE/zookeeper"
    else
        [ -x "$1" ] || die "'$1' is neither 'zookeeper' nor a ringkeeper binary"
    fi
}

# server_config FILE [LINE...]: a zoo.cfg on loopback and a free port; sets SERVER_PORT.
# A LINE replaces the default line of the same key.
server_config() {
    local file=$1 line key
    shift
    mkdir -p "${file%/*}"
    SERVER_PORT=$(free_port)
    cat >"$file" <<CONFIG
tickTime=2000
dataDir=${file%/*}/data
clientPort=$SERVER_PORT
clientPortAddress=127.0.0.1
admin.enableServer=false
4lw.commands.whitelist=*
maxClientCnxns=0
CONFIG
    for line in "$@"; do
        key=${line%%=*}
        { grep -v -F "$key=" "$file" || true; echo "$line"; } >"$file.new"
        mv "$file.new" "$file"
    done
}

# server_exec SERVER CONFIG: becomes the server, in the foreground.
server_exec() {
    if [ "$1" = zookeeper ]; then
        local jars=$INTEROP_CACHE/zookeeper properties
        # It takes these only as system properties of just that name, not from the file.
        mapfile -t properties < <(sed -n 's/^znode[.]container/-D&/p' "$2")
        # The quick compiler and the plain collector: these servers live for seconds.
        exec java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xmx768m "${properties[@]}" \
            -cp "$jars:$jars/*" org.apache.zookeeper.server.quorum.QuorumPeerMain "$2"
    fi
    # shellcheck disable=SC2086 # several words are meant
    exec "$1" "$2" ${RINGKEEPER_FLAGS:-}
}

# server_start SERVER NAME [LINE...]: starts one with those config lines and waits until it serves.
# Sets SERVER_PORT, SERVER_PID and SERVER_LOG.
server_start() {
    local server=$1 dir=$SERVER_SCRATCH/$2
    shift 2
    server_prepare "$server"
    server_config "$dir/zoo.cfg" "$@"
    SERVER_LOG=$dir/log
    server_exec "$server" "$dir/zoo.cfg" >>"$SERVER_LOG" 2>&1 &
    SERVER_PID=$!
    SERVER_PIDS+=("$SERVER_PID")
    server_await "$SERVER_PORT" "$SERVER_PID" || {
        tail -n 40 "$SERVER_LOG" >&2
        die "$server did not start"
    }
}

# server_await PORT PID: waits until a session could be had there, at most a minute.
server_await() {
    local deadline=$((SECONDS + 60))
    until four_letter "$1" srvr 2>/dev/null | grep -q '^Mode: '; do
        kill -0 "$2" 2>/dev/null || return 1
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.1
    done
}

# server_stop PID: as an operator stops it; it must go within half a minute.
server_stop() {
    kill "$1" 2>/dev/null || return 0
    local deadline=$((SECONDS + 30))
    while kill -0 "$1" 2>/dev/null; do
        [ $SECONDS -lt $deadline ] || die "server $1 does not stop on SIGTERM"
        sleep 0.1
    done
}

# four_letter PORT WORD: the answer of that four-letter word.
four_letter() {
    (
        exec 3<>"/dev/tcp/127.0.0.1/$1"
        printf '%s' "$2" >&3
        timeout 10 cat <&3
    )
}
