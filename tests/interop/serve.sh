#!/usr/bin/env bash
# Becomes a server, for harnesses that start theirs by a command.
# usage: serve.sh zookeeper|RINGKEEPER_BINARY ZOO_CFG
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$INTEROP_DIR/server.sh"
[ $# -eq 2 ] || die "usage: serve.sh zookeeper|RINGKEEPER_BINARY ZOO_CFG"
# It has its own directory, and takes the place of this process, which so removes none.
rmdir "$SERVER_SCRATCH"
server_exec "$@"
