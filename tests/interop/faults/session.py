"""A client that keeps its session through every failure, and writes down all that it was told."""

import contextlib
import dataclasses
import socket
import struct
import time

from exchange import text
from wire import CLOSE, CREATE, DELETE, GET_CHILDREN2, GET_DATA, SET_DATA, SYNC, create_body, names_of

PING, MULTI, SET_WATCHES = 11, 14, 101
NO_NODE, BAD_VERSION = -101, -103
EPHEMERAL, SEQUENTIAL = 1, 2
# Any version will do; nothing is known of the outcome.
ANY, UNKNOWN = -1, 1
STAT = struct.Struct(">qqqqiiiqiiq")
# For how long no server may take the session, with all faults bounded.
CONNECT_WAIT = 90.0


class Lost(Exception):
    """The connection has broken: the outcome of what was asked is not known."""


class Ended(Exception):
    """The servers know no such session any more."""


@dataclasses.dataclass(slots=True)
class Op:
    """One request, and what came of it. Times are those of one monotonic clock."""

    client: str
    session: int
    kind: str
    path: str
    begin: float
    end: float = 0.0
    error: int = UNKNOWN
    zxid: int = 0
    version: int = 0
    changed: int = 0
    value: bytes | tuple = b""
    synced: bool = False
    server: tuple = ()


class Session:
    """`servers` are (host, port) pairs; `patience` is for how long a reply is waited for."""

    def __init__(self, name, servers, random, timeout_ms=30000, patience=3.0):
        self.name, self.servers, self.random = name, list(servers), random
        self.timeout_ms, self.patience = timeout_ms, patience
        self.random.shuffle(self.servers)
        self.socket, self.session, self.password = None, 0, bytes(16)
        self.last_zxid, self.xid, self.moves, self.at = 0, 0, 0, 0
        self.history, self.wrong = [], []
        # Versions of znodes that are watched; what has fired is not there any more.
        self.watched = {}
        # When it was told that it has ended.
        self.ended = float("inf")

    # Connections.

    def connect(self):
        """Goes to the first server in turn that takes the session, or gives one."""
        deadline = time.monotonic() + CONNECT_WAIT
        while time.monotonic() < deadline:
            self.at = (self.at + 1) % len(self.servers)
            with contextlib.suppress(OSError, Lost):
                self.attach(self.servers[self.at])
                return
            self.drop()
            time.sleep(0.01)
        raise TimeoutError(f"{self.name}: no server takes session {self.session:#x}")

    def attach(self, server):
        self.socket = socket.create_connection(server, timeout=min(self.patience, 3.0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        hello = struct.pack(">iqiq", 0, self.last_zxid, self.timeout_ms, self.session)
        self.send(hello + text(self.password) + b"\0")
        answer = self.receive()
        _, granted, session = struct.unpack(">iiq", answer[:16])
        self.socket.settimeout(self.patience)
        if self.session and not session:
            self.drop()
            self.ended = time.monotonic()
            raise Ended(self.name)
        if session == 0 or granted != self.timeout_ms:
            self.wrong.append(f"{self.name}: asked {self.timeout_ms} ms, {session:#x} has {granted}")
        self.session, self.password = session, answer[20:36]
        self.xid = 0  # As kazoo does: a server must not take an earlier answer for one to this.
        self.moves += 1
        if self.watched:
            paths = [text(path) for path in self.watched]
            body = struct.pack(">qi", self.last_zxid, len(paths)) + b"".join(paths) + bytes(8)
            self.send(struct.pack(">ii", -8, SET_WATCHES) + body)
            self.reply(-8)

    def drop(self):
        """Leaves without a word."""
        if self.socket:
            self.socket.close()
        self.socket = None

    def send(self, packet):
        self.socket.sendall(struct.pack(">i", len(packet)) + packet)

    def exactly(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise Lost(self.name)
            data += more
        return data

    def receive(self):
        return self.exactly(struct.unpack(">i", self.exactly(4))[0])

    def reply(self, wanted):
        """The reply to request `wanted`; events that come before it are taken note of."""
        while True:
            packet = self.receive()
            xid, zxid, error = struct.unpack(">iqi", packet[:16])
            if xid == -1:
                self.watched.pop(packet[28:].decode(), None)
                continue
            if xid != wanted:
                self.wrong.append(f"{self.name}: reply {xid} in place of {wanted}")
                raise Lost(self.name)
            if zxid > 0:
                if zxid < self.last_zxid:
                    self.wrong.append(f"{self.name}: zxid {zxid:#x} after {self.last_zxid:#x}")
                self.last_zxid = max(self.last_zxid, zxid)
            return error, zxid, packet[16:]

    # Requests.

    def ask(self, ops, requests):
        """Sends all requests at once; fills in what came of each of them."""
        self.history += ops
        replies = []
        try:
            if not self.socket:
                self.connect()
            # What is asked is not under way before there is a connection.
            packets, first = b"", self.xid + 1
            for kind, body in requests:
                self.xid += 1
                packet = struct.pack(">ii", self.xid, kind) + body
                packets += struct.pack(">i", len(packet)) + packet
            for op in ops:
                op.begin, op.session = time.monotonic(), self.session
                op.server = self.servers[self.at]
            self.socket.sendall(packets)
            for number, op in enumerate(ops):
                op.error, op.zxid, body = self.reply(first + number)
                op.end = time.monotonic()
                replies.append(body)
        except (OSError, Lost) as error:
            self.drop()
            raise Lost(self.name) from error
        except (Ended, TimeoutError):
            del self.history[-len(ops) :]
            raise
        return replies

    def op(self, kind, path, **more):
        return Op(self.name, self.session, kind, path, time.monotonic(), **more)

    def set(self, path, value, version=ANY):
        op = self.op("set", path, value=value, version=version)
        body = text(path) + text(value) + struct.pack(">i", version)
        (reply,) = self.ask([op], [(SET_DATA, body)])
        if op.error == 0:
            stat = STAT.unpack(reply[:68])
            if version not in (ANY, stat[4] - 1):
                self.wrong.append(f"{self.name}: version {version} became {stat[4]} at {path}")
            op.version, op.changed = stat[4], stat[1]
        return op

    def get(self, path, watch=False, synced=False):
        ops, requests = [self.op("get", path, synced=synced)], []
        if synced:
            ops.insert(0, self.op("sync", path))
            requests.append((SYNC, text(path)))
        requests.append((GET_DATA, text(path) + bytes([watch])))
        reply = self.ask(ops, requests)[-1]
        op = ops[-1]
        op.synced = synced and ops[0].error == 0
        if op.error == 0:
            stat = STAT.unpack(reply[-68:])
            op.value, op.version, op.changed = reply[4:-68], stat[4], stat[1]
            seen = self.watched.get(path, op.version)
            if seen != op.version:
                self.wrong.append(f"{self.name}: {path} went from {seen} to {op.version}, no event")
            if watch:
                self.watched[path] = op.version
        return op

    def create(self, path, value=b"", flags=0):
        op = self.op("create", path, value=value)
        (reply,) = self.ask([op], [(CREATE, create_body(path, value, flags=flags))])
        if op.error == 0:
            op.path, op.changed = reply[4:].decode(), op.zxid
        return op

    def create_both(self, one, other):
        """Two znodes in one transaction."""
        ops = [self.op("create", path) for path in (one, other)]
        parts = [struct.pack(">ibi", CREATE, 0, -1) + create_body(op.path) for op in ops]
        multi = self.op("multi", one)
        self.history += ops
        try:
            self.ask([multi], [(MULTI, b"".join(parts) + struct.pack(">ibi", -1, 1, -1))])
        finally:
            for op in ops:
                op.begin, op.end, op.error = multi.begin, multi.end, multi.error
                op.zxid = op.changed = multi.zxid
        return multi

    def delete(self, path):
        op = self.op("delete", path)
        self.ask([op], [(DELETE, text(path) + struct.pack(">i", ANY))])
        op.changed = op.zxid
        return op

    def children(self, path, synced=True):
        ops, requests = [self.op("children", path, synced=synced)], []
        if synced:
            ops.insert(0, self.op("sync", path))
            requests.append((SYNC, text(path)))
        reply = self.ask(ops, requests + [(GET_CHILDREN2, text(path) + b"\0")])[-1]
        op = ops[-1]
        op.synced = synced and ops[0].error == 0
        if op.error == 0:
            op.value = tuple(names_of(reply))
        return op

    def ping(self):
        """Says that it is alive. Not written down as a request, but as a touch."""
        op = self.op("ping", "")
        self.history.append(op)
        try:
            if not self.socket:
                self.connect()
            op.begin = time.monotonic()
            self.send(struct.pack(">ii", -2, PING))
            op.error, op.zxid, _ = self.reply(-2)
            op.end = time.monotonic()
        except (OSError, Lost) as error:
            self.drop()
            raise Lost(self.name) from error
        return op

    def close(self):
        """Ends the session; its end is certain when this returns."""
        op = self.op("close", "")
        self.ask([op], [(CLOSE, b"")])
        self.drop()
        return op
