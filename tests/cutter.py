"""A proxy that cuts connections after so many bytes, for tests of resuming."""

import random
import selectors
import socket
import struct
import threading


class Cutter:
    """Forwards to `port`; each connection lives for a number of bytes from `lives`.

    After the last of them connections are left alone.  Half of the cuts are resets,
    which can destroy what was sent but not read.
    """

    def __init__(self, port, lives, seed):
        self._target, self._lives = port, list(lives)
        self._dice = random.Random(seed)
        self.cuts = 0
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._stopper, stopped = socket.socketpair()
        self._selector.register(stopped, selectors.EVENT_READ, "stop")
        self._pairs = {}
        self._thread = threading.Thread(target=self._run, args=(stopped,), daemon=True)
        self._thread.start()

    def stop(self):
        self._stopper.send(b"x")
        self._thread.join(5)
        self._stopper.close()

    def _run(self, stopped):
        while True:
            for key, _ in self._selector.select():
                if key.data == "stop":
                    for sock in [*self._pairs, self._listener, stopped]:
                        sock.close()
                    self._selector.close()
                    return
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj in self._pairs:
                    self._forward(key.fileobj)

    def _accept(self):
        near, _ = self._listener.accept()
        far = socket.create_connection(("127.0.0.1", self._target))
        life = [self._lives.pop(0) if self._lives else float("inf")]
        for sock, other in ((near, far), (far, near)):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs[sock] = (other, life)
            self._selector.register(sock, selectors.EVENT_READ)

    def _forward(self, sock):
        other, life = self._pairs[sock]
        try:
            data = sock.recv(1 << 16)
            if not data:
                other.shutdown(socket.SHUT_WR)
                self._selector.unregister(sock)
                return
            kept = data if len(data) < life[0] else data[: int(life[0])]
            other.sendall(kept)
        except OSError:
            self._cut(sock)
            return
        life[0] -= len(data)
        if life[0] <= 0:
            self.cuts += 1
            self._cut(sock)

    def _cut(self, sock):
        other, _ = self._pairs[sock]
        resets = self._dice.random() < 0.5
        for end in (sock, other):
            del self._pairs[end]
            if end in [key.fileobj for key in self._selector.get_map().values()]:
                self._selector.unregister(end)
            if resets:
                linger = struct.pack("ii", 1, 0)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            end.close()
