#!/usr/bin/env bash
# Every recipe of Curator, through the Java client.
# usage: curator.sh zookeeper|RINGKEEPER_BINARY
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$INTEROP_DIR/server.sh"

[ $# -eq 1 ] || die "usage: curator.sh zookeeper|RINGKEEPER_BINARY"
prepare_curator

# Containers and TTL nodes are looked at often, so that nobody has to wait for their end.
server_start "$1" curator extendedTypesEnabled=true znode.container.checkIntervalMs=100 tickTime=500
# Curator reads the ensemble's members from the server; standalone has none to tell.
timeout 300 java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xmx512m -cp "$CURATOR_PATH" \
    -Dzookeeper.sasl.client=false Main "127.0.0.1:$SERVER_PORT" 2>"$SERVER_SCRATCH/client.log"
