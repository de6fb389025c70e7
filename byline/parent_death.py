"""Processes that end with whoever started them, in whatever way that ends: `prctl(PR_SET_PDEATHSIG)` of Linux.

The kernel watches the *thread* that forks: one that starts such a process must live as long as the process may.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

__all__ = ["dying_with_parent"]

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def dying_with_parent(sent: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """What `subprocess.Popen(preexec_fn=…)` is given: the child gets `sent` when this process dies.

    It begins a session of its own, so that Ctrl-C on a terminal reaches this process alone.
    """
    parent = os.getpid()

    def prepare() -> None:
        os.setsid()
        if sent != signal.SIGKILL:  # a shell's background job ignores SIGINT, and so would its children
            signal.signal(sent, signal.SIG_DFL)
        _libc.prctl(_PR_SET_PDEATHSIG, sent, 0, 0, 0)
        if os.getppid() != parent:  # it died before we said so, and nobody will tell us
            os._exit(1)

    return prepare
