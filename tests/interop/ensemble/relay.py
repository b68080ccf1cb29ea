"""A port that passes on to another, slowly if asked to."""

import contextlib
import socket
import threading


class Relay:
    """Passes on to a port of loopback, as long as its `with` lasts. What comes from there is held
    for `hold` seconds, once for each connection, when its first bytes have been passed on."""

    def __init__(self, target):
        self.target, self.hold = target, 0.0
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.ended, self.sockets = threading.Event(), [self.listening]
        self.start(self.accept)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ended.set()
        for open_socket in self.sockets:
            end(open_socket)

    def start(self, run, *arguments):
        threading.Thread(target=run, args=arguments, daemon=True).start()

    def accept(self):
        while not self.ended.is_set():
            with contextlib.suppress(OSError):
                near, _ = self.listening.accept()
                self.sockets.append(near)
                far = socket.create_connection(("127.0.0.1", self.target), timeout=10)
                far.settimeout(None)
                self.sockets.append(far)
                self.start(self.carry, near, far, 0.0)
                self.start(self.carry, far, near, self.hold)

    def carry(self, source, sink, hold):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
                self.ended.wait(hold)
                hold = 0.0
        end(source)
        end(sink)


def end(open_socket):
    """Ends a socket in which another thread may wait."""
    with contextlib.suppress(OSError):
        open_socket.shutdown(socket.SHUT_RDWR)
    open_socket.close()
