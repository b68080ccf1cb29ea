#!/usr/bin/env bash
# Becomes a server, for harnesses that start theirs by a command.
# usage: serve.sh zookeeper|RINGKEEPER_BINARY ZOO_CFG
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$INTEROP_DIR/server.sh"
[ $# -eq 2 ] || die "usage: serve.sh zookeeper|RINGKEEPER_BINARY ZOO_CFG"
server_exec "$@"
