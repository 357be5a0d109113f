"""What tests of signals need, since a job in the background, or `nohup`, hands ignored signals down to pytest."""

import signal


def heed_signals() -> None:
    """For `preexec_fn`: the process heeds the signals that stop a command, as one started from a terminal does."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)
