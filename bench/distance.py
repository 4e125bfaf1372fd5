"""A registry that is far away: what goes to it and what comes back arrives later, as over a long line."""

import queue
import socket
import threading
import time


class Distance:
    """Passes connections on to a port of this machine, `away` seconds of round trip from here. Nothing is lost, and bytes
    under way do not wait for one another."""

    def __init__(self, port, away):
        self.port, self.half = port, away / 2
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self.port))
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Before a real connection says anything there is a round trip: TCP's handshake.
            self.carry(near, far, 2 * self.half)
            self.carry(far, near, 0)

    def carry(self, source, to, handshake):
        under_way = queue.SimpleQueue()

        def take():
            late, some = handshake, True
            while some:
                try:
                    some = source.recv(1 << 16)
                except OSError:
                    some = b""
                under_way.put((time.monotonic() + self.half + late, some))
                late = 0

        def give():
            arrives = 0
            while True:
                due, some = under_way.get()
                arrives = max(arrives, due)
                time.sleep(max(0, arrives - time.monotonic()))
                try:
                    if not some:
                        to.shutdown(socket.SHUT_WR)
                        return
                    to.sendall(some)
                except OSError:
                    return

        for work in (take, give):
            threading.Thread(target=work, daemon=True).start()

    def stop(self):
        self.listener.close()
