"""Signals that stop a command: in comes SIGINT, SIGTERM or SIGHUP, out comes an exception that lets the run clean up.

Only the command line installs these handlers, and only for signals that nothing else ignores (`nohup`, a background
job) or handles.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
# Most seconds from the signal to the end of the process.
LEAVE_WITHIN = 4.0
# Seconds within which several signals, as from a terminal and a launcher, count as one event.
ONE_EVENT = 0.5


class Interrupted(KeyboardInterrupt):
    """A signal asks the command to stop."""


class Interruption:
    """A context in which the first signal raises `Interrupted` in the main thread, and a later one ends the process.

    The process also ends if it is still running after `LEAVE_WITHIN` seconds: Python can't interrupt a library that
    waits or computes in native code. An error after the signal counts as its consequence.

    Attributes:
        signum: The signal that was received; 0 before.
    """

    def __init__(self):
        self.signum: int = 0
        self._before: dict[int, Any] = {}
        self._pipe: int | None = None  # Where the interpreter writes the number of each signal, whatever it is doing.

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            usual = (signal.SIG_DFL, signal.default_int_handler)
            self._before = {
                signum: signal.getsignal(signum) for signum in STOPPING if signal.getsignal(signum) in usual
            }
            for signum in self._before:
                signal.signal(signum, self.handle)
            self._start_to_watch()
            _active.append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.let_go()
        if self._pipe is not None:
            os.close(self._pipe)
        if self.signum and error is not None and not isinstance(error, KeyboardInterrupt):
            raise Interrupted from error

    @property
    def status(self) -> int:
        """The exit status, as shells report it."""
        return 128 + (self.signum or signal.SIGINT)

    def tell(self, write: Callable[[str], object]) -> None:
        """Print one line, below any progress bar; only the first process of a launch prints."""
        name = signal.Signals(self.signum or signal.SIGINT).name
        if os.environ.get("RANK", "0") == "0":
            with suppress(OSError):  # After SIGHUP the terminal may be gone.
                write(f"\nstopped by {name}; run the same command again to go on\n")

    def handle(self, signum: int, frame: FrameType | None) -> None:
        if not self.signum or self._pipe is None:  # Otherwise `_watch` decides whether it is an echo of the first.
            self.signum = signum
            raise Interrupted

    def let_go(self) -> None:
        """Restore the former signal handlers."""
        if self in _active:
            _active.remove(self)
            for signum, handler in self._before.items():
                signal.signal(signum, handler)
            if self._pipe is not None:
                signal.set_wakeup_fd(-1)

    def _start_to_watch(self) -> None:
        read, write = os.pipe()
        os.set_blocking(write, False)
        if (elsewhere := signal.set_wakeup_fd(write, warn_on_full_buffer=False)) == -1:
            self._pipe = write
            threading.Thread(target=self._watch, args=(read,), name="teamsrl-signals", daemon=True).start()
        else:  # An event loop in this very thread, as in a notebook, needs it.
            signal.set_wakeup_fd(elsewhere)
            os.close(read)
            os.close(write)

    def _watch(self, read: int) -> None:
        first = None
        while byte := os.read(read, 1):
            if byte[0] not in self._before:
                continue
            if first is None:
                first = time.monotonic()
                timer = threading.Timer(LEAVE_WITHIN, self._leave, [byte[0]])
                timer.daemon = True
                timer.start()
            elif time.monotonic() - first > ONE_EVENT:
                self._leave(byte[0])
        os.close(read)

    def _leave(self, signum: int) -> None:
        if self in _active:
            self.signum = self.signum or signum
            self.tell(lambda text: os.write(2, text.encode()))  # The main thread may hold the stream's lock.
        elif threading.main_thread().is_alive():
            return  # The command is over, and the process has other things to do.
        # Else Python is about to exit, and waits for a library's thread.
        os._exit(128 + signum)


class Forwarding(Interruption):
    """`Interruption` for a process that only waits for its children: they get the signal, and end first."""

    def handle(self, signum: int, frame: FrameType | None) -> None:
        import psutil

        self.signum = signum
        children = psutil.Process().children()
        for child in children:
            child.send_signal(signum)
        if not children:
            raise Interrupted

    def _start_to_watch(self) -> None: ...


def leave(status: int) -> int:
    """The status of a command, for `sys.exit`. After a signal the process ends here.

    A normal exit would first unload torch and other libraries, which takes a second or more; after a signal, about one
    process in sixty crashed while it did.
    """
    if status - 128 in STOPPING:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(status)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python aborts where it raises one while it takes itself apart.
    return status


_active: list[Interruption] = []


def _in_child() -> None:
    """A forked process, such as a data loader, is not the command: a signal ends it as usual."""
    while _active:
        _active[-1].let_go()


os.register_at_fork(after_in_child=_in_child)
