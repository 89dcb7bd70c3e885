"""The engine of the asyncio face: the sockets are read in the event loop's own thread, without any other.

Requests that tasks make in one turn of the loop travel together. ZeroMQ's descriptors tell of changes, not of what is
there: an event that was not looked for is not told of again. So each turn reads all that has come, and looks once more
after it has sent, since sending may take in what had arrived.
"""

import _thread
import asyncio
import logging
import threading

from ..transport import sockets
from . import clock
from .calling import ends, has_ended
from .errors import Unavailable
from .protocol import Protocol
from .pump import Pump

log = logging.getLogger(__name__)


class LoopEngine:
    """Runs a protocol in the event loop that runs now. Whoever calls the protocol then calls `wake`."""

    def __init__(self, protocol: Protocol) -> None:
        """Start without a socket."""
        self.protocol = protocol
        self.loop = asyncio.get_running_loop()
        self.ended = False  # it takes no turns any more
        self._over = threading.Event()
        self._turning = False
        self._retire_ms = 0
        self._pump = Pump(protocol, self._watch)
        self._called = False
        self._timer: asyncio.TimerHandle | None = None

    def _watch(self, socket: sockets.Socket) -> None:
        if not self.ended and not self.loop.is_closed():
            self.loop.add_reader(socket.fileno(), self._turn)

    def wake(self) -> None:
        """Have what the protocol has to send be sent in the next turn of the loop."""
        if not self._called and not self.ended and not self.loop.is_closed():
            self._called = True
            self.loop.call_soon(self._turn_as_called)

    def stop(self) -> None:
        """Close the sockets. What is under way is not waited for."""
        if self.ended:
            return
        self._leave_loop()
        context = self._pump.close()
        if context is not None:  # its end may take a moment, and the loop is not to wait
            threading.Thread(target=sockets.end_context, args=(context,), name="lessor-zmq-end", daemon=True).start()
        self._over.set()

    def retire(self, within_ms: int) -> None:
        """Have the session ended, within this time, and then the engine, by a thread that does only this.

        Waits for nothing and takes no lock: the garbage collector calls it, wherever the program happens to be, and so
        do the interpreter and a client that is closed in another loop. A loop that runs may take no turn any more.
        """
        if self.ended:
            return
        if self.loop.is_running() and not runs_here(self.loop):
            try:
                self.loop.call_soon_threadsafe(self._hand_over, within_ms)
            except RuntimeError:  # it was closed just now
                self._hand_over(within_ms)
        else:
            self._hand_over(within_ms)

    def join(self, timeout: float) -> None:
        """Wait for the end of the engine."""
        self._over.wait(timeout)

    def _leave_loop(self) -> None:
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
        if not self.loop.is_closed():
            for socket in self._pump.all_sockets():
                self.loop.remove_reader(socket.fileno())

    def _hand_over(self, within_ms: int) -> None:
        if self.ended:
            return
        if self._turning:  # the client was collected in the midst of it, which has the sockets
            self._retire_ms = within_ms
            return
        self._leave_loop()
        ends(self)
        try:
            # a Thread would take a lock of `threading`, which the collector may have interrupted somebody under
            _thread.start_new_thread(self._end, (within_ms,))
        except RuntimeError:  # there is none to be had
            self._end(within_ms)

    def _end(self, within_ms: int) -> None:
        over: list[object] = []
        try:
            now = self.protocol.now_ms = clock.now_ms()
            self.protocol.close(over.append, now + within_ms)
            self._pump.run(lambda: bool(over), within_ms)
            self.protocol.end_calls()
        except Exception:
            log.exception("the end of a client failed")
        finally:
            context = self._pump.close()
            if context is not None:
                sockets.end_context(context)
            self._over.set()
            has_ended(self)

    def _turn_as_called(self) -> None:
        self._called = False
        self._turn()

    def _turn(self) -> None:
        if self.ended:
            return
        self._turning = True
        try:
            self._take_turn()
        except Exception as error:
            log.exception("the client's engine failed")
            told = Unavailable(f"the client's engine failed: {error!r}", indefinite=True)
            told.__cause__ = error
            self.stop()
            self.protocol.fail_all(told)
        finally:
            self._turning = False
        if self._retire_ms:
            self._hand_over(self._retire_ms)

    def _take_turn(self) -> None:
        packets = self._pump.step(self._pump.receive())
        for packet in self._pump.send(packets):
            self.protocol.not_sent(packet)
        if self.ended:
            return
        if packets or any(sockets.readable(socket) for socket in self._pump.all_sockets()):
            self.wake()
        self._set_timer(self._pump.wait_ms())

    def _set_timer(self, wait_ms: int | None) -> None:
        at = None if wait_ms is None else self.loop.time() + wait_ms / 1000
        if self._timer is not None and (at is None or self._timer.when() > at):
            self._timer.cancel()
            self._timer = None
        if at is not None and self._timer is None:  # one that comes too early sets the next
            self._timer = self.loop.call_at(at, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._turn()


def runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether a loop is what runs in this thread."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
