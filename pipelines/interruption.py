"""A polite end: who stops a training by SIGTERM finds its run marked KILLED, as after Ctrl-C."""

from __future__ import annotations

import signal


def end_like_ctrl_c() -> None:
    """Let SIGTERM end this process's run as Ctrl-C does, so that the store hears of it."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
