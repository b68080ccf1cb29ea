#!/usr/bin/env bash
# The go-zookeeper client.
# usage: go.sh zookeeper|RINGKEEPER_BINARY
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$INTEROP_DIR/server.sh"

[ $# -eq 1 ] || die "usage: go.sh zookeeper|RINGKEEPER_BINARY"
need go golang-go
# Modules may be written to, so that the cache can be removed like anything else.
export GOFLAGS="-buildvcs=false -modcacherw" GOMODCACHE=$INTEROP_CACHE/go/mod
export GOCACHE=$INTEROP_CACHE/go/build
(cd "$INTEROP_DIR/go" && go build -o "$INTEROP_CACHE/go/interop" .)

# Containers and TTL nodes are looked at often, so that nobody has to wait for their end.
server_start "$1" go extendedTypesEnabled=true znode.container.checkIntervalMs=100
timeout 120 "$INTEROP_CACHE/go/interop" "127.0.0.1:$SERVER_PORT"
