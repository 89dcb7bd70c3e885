"""The client's thread: it alone touches the sockets, and runs the protocol whenever something happened."""

import logging
import threading

import zmq

from ..transport import sockets
from ..transport.waker import make_waker
from . import clock
from .calling import ends, has_ended
from .errors import Unavailable
from .protocol import Protocol
from .pump import Pump

log = logging.getLogger(__name__)


class Engine:
    """Runs a protocol on real sockets. Whoever calls the protocol holds `lock`, and then calls `wake`."""

    def __init__(self, protocol: Protocol, lock: "threading.RLock | None" = None) -> None:
        """Start the thread; it is a daemon, so it never keeps the interpreter from ending."""
        self.protocol = protocol
        self.lock = lock or threading.RLock()
        self._waker = make_waker()
        self._asleep = False
        self._stopping = False
        self._retire_ms = 0
        self._ended = False
        self._poller = zmq.Poller()
        self._poller.register(self._waker.fileno(), zmq.POLLIN)
        self._pump = Pump(protocol, lambda socket: self._poller.register(socket, zmq.POLLIN))
        self._thread = threading.Thread(target=self._run, name="lessor-client", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Have the thread send what the protocol has to send. Call it without or with the lock."""
        if self._asleep:
            self._asleep = False
            self._ring()

    def stop(self) -> None:
        """End the thread and close the sockets. What is under way is not waited for."""
        if not self._stopping:
            self._stopping = True
            self._ring()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)

    def retire(self, within_ms: int) -> None:
        """Have the thread end the session, within this time, and then itself.

        Waits for nothing and takes no lock: the garbage collector calls it, wherever the program happens to be.
        """
        self._retire_ms = within_ms
        if not self._ended:
            ends(self)
            self._waker.ring()

    def join(self, timeout: float) -> None:
        """Wait for the end of the thread."""
        self._thread.join(timeout)

    def _ring(self) -> None:
        with self.lock:
            if not self._ended:  # its file may be somebody else's by now
                self._waker.ring()

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
        except Exception as error:
            log.exception("the client's thread failed")
            self._fail(error)
        finally:
            context = self._pump.close()
            if context is not None:
                sockets.end_context(context)
            with self.lock:
                self._ended = True
                self._waker.close()
            has_ended(self)

    def _fail(self, error: Exception) -> None:
        told = Unavailable(f"the client's thread failed: {error!r}", indefinite=True)
        told.__cause__ = error
        with self.lock:
            self.protocol.fail_all(told)

    def _turn(self) -> None:
        arrivals = self._pump.receive()
        with self.lock:
            if self._retire_ms:
                self._begin_to_retire()
            out = self._pump.step(arrivals)
            # set before the lock is given back: whoever adds something from now on rings
            self._asleep = not out and not arrivals.frames and not self._stopping
            wait_ms = self._pump.wait_ms()
        unsent = self._pump.send(out)
        if unsent:
            with self.lock:
                for packet in unsent:
                    self.protocol.not_sent(packet)
        if self._asleep:
            self._poller.poll(wait_ms)
            self._asleep = False
            self._waker.hush()

    def _begin_to_retire(self) -> None:
        def done(_: object) -> None:
            self._stopping = True

        now = self.protocol.now_ms = clock.now_ms()
        within_ms, self._retire_ms = self._retire_ms, 0
        self.protocol.close(done, now + within_ms)
