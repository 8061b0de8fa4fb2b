"""A wire to the database that is cut now and then, when the server has done what it was asked and before its answer is here."""

import random
import selectors
import socket
import threading
from contextlib import suppress

READ = 65_536


class Proxy:
    """Passes bytes between clients and a server, in a thread of its own."""

    def __init__(self, target: int, seed: int) -> None:
        self._target = target
        self._random = random.Random(seed)
        #: Share of answers that are lost, with the connection: of all, and of those to a COMMIT.
        self.share = self.commits = 0.0
        self.cut = 0
        self._peer: dict[socket.socket, socket.socket] = {}
        self._servers: set[socket.socket] = set()
        self._committing: set[socket.socket] = set()
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self.port: int = self._listener.getsockname()[1]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        while self._peer:
            self._end(next(iter(self._peer)))
        self._listener.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._over.is_set():
            for key, _events in self._selector.select(0.1):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock is self._listener:
                    self._accept()
                elif sock in self._peer:
                    self._pass_on(sock)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        self._servers.add(server)
        for sock, peer in ((client, server), (server, client)):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._peer[sock] = peer
            self._selector.register(sock, selectors.EVENT_READ)

    def _pass_on(self, sock: socket.socket) -> None:
        got = b""
        with suppress(OSError):
            got = sock.recv(READ)
        if got and sock in self._servers and self._is_lost(sock):
            self.cut += 1
            got = b""
        if b"COMMIT" in got:
            self._committing.add(self._peer[sock])
        if not got:
            self._end(sock)
            return
        try:
            self._peer[sock].sendall(got)
        except OSError:
            self._end(sock)

    def _is_lost(self, server: socket.socket) -> bool:
        share = self.commits if server in self._committing else self.share
        self._committing.discard(server)
        return self._random.random() < share

    def _end(self, sock: socket.socket) -> None:
        for each in (sock, self._peer[sock]):
            self._peer.pop(each)
            self._servers.discard(each)
            self._committing.discard(each)
            self._selector.unregister(each)
            each.close()
