#!/usr/bin/env bash
# Resident memory while a snapshot takes a minute, under full write load on a million znodes.
# usage: slow-snapshot.sh RINGKEEPER RINGKEEPER_BENCH [BYTES_PER_SECOND]
#
# Fails if the server's memory more than doubles, or if no snapshot was held up.
# Snapshots go to a file system of their own, whose device a cgroup slows down; the log does not.
# Needs root, loop devices and the blkio controller of cgroups v1, and 6 GB of disk.
set -euo pipefail

server=$(realpath "$1") bench=$(realpath "$2") rate=${3:-2200000}
port=23400
directory=$(mktemp -d ./slow-snapshot.XXXXXX)
group=/sys/fs/cgroup/blkio/ringkeeper-slow-snapshot
pid='' device=''

clean() {
    [ -z "$pid" ] || { kill "$pid" && wait "$pid" || true; }
    mountpoint -q "$directory/snapshots" && umount "$directory/snapshots"
    [ -z "$device" ] || losetup -d "$device"
    [ ! -d "$group" ] || rmdir "$group"
    rm -rf "$directory"
}
trap clean EXIT

mkdir "$directory/snapshots" "$directory/log"
fallocate -l 6G "$directory/device"
device=$(losetup -f --show "$directory/device")
mkfs.ext4 -q "$device"
mount "$device" "$directory/snapshots"
cat > "$directory/zoo.cfg" <<EOF
clientPort=$port
clientPortAddress=127.0.0.1
dataDir=$directory/snapshots/data
dataLogDir=$directory/log
maxClientCnxns=0
EOF
"$server" "$directory/zoo.cfg" 2> "$directory/server.log" &
pid=$!
until grep -q 'serving clients' "$directory/server.log"; do
    kill -0 "$pid" || { cat "$directory/server.log"; exit 1; }
    sleep 0.1
done

load() {
    "$bench" load set -q --hosts 127.0.0.1:$port --server-pid "$pid" --keys 1000000 --keep \
        --connections 64 --depth 16 --warm-up 0 "$@"
}
# memory FIELD: of the server, in MiB
memory() { awk -v field="$1:" '$1 == field { print int($2 / 1024) }' "/proc/$pid/status"; }

load --seconds 1 > /dev/null
# The snapshot that an idle server takes is written at full speed.
sleep 5
before=$(memory VmRSS) written=$(grep -c 'snapshot written' "$directory/server.log" || true)
mkdir -p "$group"
echo "$(lsblk -dno MAJ:MIN "$device" | tr -d ' ') $rate" > "$group/blkio.throttle.write_bps_device"
for task in /proc/"$pid"/task/*; do
    echo "${task##*/}" > "$group/tasks"
done
load --seconds 90
peak=$(memory VmHWM)
echo "resident memory: $before MiB before, $peak MiB at most"
snapshot=$(sed -n 's/.*\(snapshot written.*\)/\1/p' "$directory/server.log" |
    tail -n +$((written + 1)) | tail -1)
echo "${snapshot:-no snapshot was written meanwhile}"
bytes=$(sed -n 's/.* bytes=\([0-9]*\).*/\1/p' <<< "$snapshot")
took_ms=$(sed -n 's/.* took_ms=\([0-9]*\).*/\1/p' <<< "$snapshot")
# A tenth less than what the rate makes of it: the kernel may let a burst through.
least_ms=$((${bytes:-0} * 900 / rate))
if [ "${took_ms:-0}" -le "$least_ms" ]; then
    echo "failed: a snapshot at $rate bytes per second takes more than $least_ms ms"
    exit 1
fi
if [ "$peak" -gt $((2 * before)) ]; then
    echo "failed: the peak is more than twice what it was before"
    exit 1
fi
