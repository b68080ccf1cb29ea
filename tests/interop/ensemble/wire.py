"""Requests that are pipelined on a plain socket, and whole trees read through a server."""

import socket
import struct

from cluster import four_letter
from exchange import ANYONE, Client, acl_list, text

CREATE, DELETE, GET_DATA, SET_DATA, GET_ACL, SYNC, GET_CHILDREN2 = 1, 2, 4, 5, 6, 9, 12
CREATE_CONTAINER, CREATE_TTL, CLOSE = 19, 21, -11
NO_NODE = -101
# So many requests are on their way at once.
WINDOW = 256


def syncs_early(host, port):
    """Whether a server answers its own clients' syncs before it has applied what it has committed:
    a ZooKeeper that leads does, since its CommitProcessor does not match them. There, a transaction
    has to come first: it waits for those before it, also if it only fails."""
    about = four_letter(port, "srvr", host)
    return "Mode: leader" in about and "ringkeeper" not in about


class Pipe(Client):
    """A client that has many requests under way."""

    def __init__(
        self, port, session=0, password=bytes(16), timeout_ms=30000, host="127.0.0.1"
    ):
        # Not the parent's: the timeout is ours to choose, and being refused is no end of us.
        self.socket = socket.create_connection((host, port), timeout=60)
        self.xid = 0
        self.send(struct.pack(">iqiq", 0, 0, timeout_ms, session) + text(password) + b"\0")
        answer = self.receive()
        _, self.timeout, self.session = struct.unpack(">iiq", answer[:16])
        self.password = answer[20:36]

    def exactly(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise EOFError("the server has closed the connection")
            data += more
        return data

    def ask_all(self, requests):
        """The replies to (kind, body) pairs: error, zxid, body."""
        replies = []
        for at in range(0, len(requests), WINDOW):
            window = requests[at : at + WINDOW]
            self.tell_all(window)
            for _ in window:
                reply = self.receive()
                _, zxid, error = struct.unpack(">iqi", reply[:16])
                replies.append((error, zxid, reply[16:]))
        return replies

    def tell_all(self, requests):
        """Sends them, and waits for no answer."""
        packets = b""
        for kind, body in requests:
            self.xid += 1
            packet = struct.pack(">ii", self.xid, kind) + body
            packets += struct.pack(">i", len(packet)) + packet
        self.socket.sendall(packets)

    def create_all(self, nodes):
        """Creates (path, data) pairs."""
        requests = [(CREATE, create_body(path, data)) for path, data in nodes]
        failed = {error for error, _, _ in self.ask_all(requests) if error}
        if failed:
            raise AssertionError(f"creating {len(nodes)} znodes: errors {failed}")

    def sync(self):
        """Afterwards the server has applied all that was acknowledged anywhere before."""
        if syncs_early(*self.socket.getpeername()):
            no_node, _ = self.ask(DELETE, text("/nowhere") + struct.pack(">i", -1))
            if no_node != NO_NODE:
                raise AssertionError(f"a delete of nothing: {no_node}")
        self.must(SYNC, text("/"))

    def close(self):
        """Ends the session."""
        self.must(CLOSE, b"")
        self.socket.close()


def create_body(path, data=b"", acl=ANYONE, flags=0):
    data = struct.pack(">i", -1) if data is None else text(data)
    return text(path) + data + acl_list(acl) + struct.pack(">i", flags)


def names_of(reply):
    count, at, names = struct.unpack(">i", reply[:4])[0], 4, []
    for _ in range(count):
        length = struct.unpack(">i", reply[at : at + 4])[0]
        names.append(reply[at + 4 : at + 4 + length].decode())
        at += 4 + length
    return names


def read_tree(port, who, host="127.0.0.1"):
    """Every znode that a server has, by path: data, access list, stat. It knows of everything that
    was acknowledged anywhere before this was called."""
    pipe = Pipe(port, host=host)
    pipe.auth(who)
    pipe.sync()
    tree, level = {}, ["/"]
    while level:
        below = []
        for at in range(0, len(level), WINDOW):
            paths = level[at : at + WINDOW]
            asked = [
                request
                for path in paths
                for request in (
                    (GET_CHILDREN2, text(path) + b"\0"),
                    (GET_DATA, text(path) + b"\0"),
                    (GET_ACL, text(path)),
                )
            ]
            replies = iter(pipe.ask_all(asked))
            for path, children, data, acl in zip(paths, replies, replies, replies):
                errors = children[0], data[0], acl[0]
                if any(errors):
                    tree[path] = errors
                    continue
                tree[path] = znode(path, data[2], acl[2])
                prefix = path if path == "/" else path + "/"
                below += [prefix + name for name in sorted(names_of(children[2]))]
        level = below
    pipe.close()
    return tree


def znode(path, data, acl):
    stat = list(struct.unpack(">qqqqiiiqiiq", data[-68:]))
    if path == "/zookeeper/config":
        # Each server writes it when it starts.
        stat[3] = "its own mtime"
    length = struct.unpack(">i", data[:4])[0]
    value = None if length < 0 else data[4:-68]
    return value, acl[:-68], tuple(stat)


def differences(left, right):
    """Where two trees differ, a line each, the first few."""
    lines = []
    for path in sorted(left.keys() | right.keys()):
        if left.get(path) != right.get(path):
            lines.append(f"{path}: {shown(left.get(path))} / {shown(right.get(path))}")
    return lines[:10]


def shown(node):
    if node is None:
        return "is not there"
    value, *rest = node
    return f"{value if value is None else value[:200]} {rest}"
