"""The client's thread: it alone touches the sockets, and runs the protocol whenever something happened."""

import logging
import threading

import zmq

from ..transport import sockets
from ..transport.waker import make_waker
from .clock import now_ms
from .errors import Unavailable
from .protocol import Protocol

log = logging.getLogger(__name__)


class Engine:
    """Runs a protocol on real sockets. Whoever calls the protocol holds `lock`, and then calls `wake`."""

    def __init__(self, protocol: Protocol) -> None:
        """Start the thread; it is a daemon, so it never keeps the interpreter from ending."""
        self.protocol = protocol
        self.lock = threading.RLock()
        self._waker = make_waker()
        self._asleep = False
        self._stopping = False
        self._ended = False
        self._dealers: dict[str, sockets.Socket] = {}
        self._monitors: dict[str, sockets.Socket] = {}
        self._poller = zmq.Poller()
        self._poller.register(self._waker.fileno(), zmq.POLLIN)
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

    def _ring(self) -> None:
        with self.lock:
            if not self._ended:  # its file may be somebody else's by now
                self._waker.ring()

    def _run(self) -> None:
        context = sockets.make_context(len(self.protocol.endpoints))
        try:
            while not self._stopping:
                self._turn(context)
        except Exception as error:
            log.exception("the client's thread failed")
            self._fail(error)
        finally:
            for endpoint, dealer in self._dealers.items():
                dealer.disable_monitor()
                self._monitors[endpoint].close()
                dealer.close()
            sockets.end_context(context)
            with self.lock:
                self._ended = True
                self._waker.close()

    def _fail(self, error: Exception) -> None:
        told = Unavailable(f"the client's thread failed: {error!r}", indefinite=True)
        told.__cause__ = error
        with self.lock:
            self.protocol.fail_all(told)

    def _turn(self, context: sockets.Context) -> None:
        protocol = self.protocol
        arrived = [
            (endpoint, frames[-1])
            for endpoint, dealer in self._dealers.items()
            if sockets.readable(dealer)
            for frames in sockets.receive(dealer)
        ]
        changed = [
            (endpoint, event) for endpoint, monitor in self._monitors.items() for event in sockets.read_monitor(monitor)
        ]
        with self.lock:
            now = now_ms()
            for endpoint, frame in arrived:
                protocol.receive(endpoint, frame, now)
            for endpoint, event in changed:
                if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                    protocol.connected(endpoint, now)
                else:
                    protocol.disconnected(endpoint, now)
            wake_at = protocol.wake_at_ms()
            if wake_at is not None and now >= wake_at:
                protocol.tick(now)
            out = protocol.take_output()
            # set before the lock is given back: whoever adds something from now on rings
            self._asleep = not out and not arrived
            wake_at = protocol.wake_at_ms()
        for packet in out:
            if not sockets.send(self._dealer(context, packet.endpoint), [packet.frame]):
                with self.lock:
                    protocol.not_sent(packet)
        if self._asleep:
            self._poller.poll(None if wake_at is None else max(0, wake_at - now_ms()))
            self._asleep = False
            self._waker.hush()

    def _dealer(self, context: sockets.Context, endpoint: str) -> sockets.Socket:
        dealer = self._dealers.get(endpoint)
        if dealer is None:
            dealer = sockets.dealer(context, endpoint, lane=len(self._dealers))
            self._dealers[endpoint] = dealer
            self._poller.register(dealer, zmq.POLLIN)
            monitor = sockets.monitor_connection(dealer)
            self._monitors[endpoint] = monitor
            self._poller.register(monitor, zmq.POLLIN)
        return dealer
