"""Work in the background: bounded threads, progress, time left, cancel. No page waits for another browser session's.

A job is a function that is given a `Report` and calls it as it goes on: `report(0.4)`. That call is also where a job
ends when it was cancelled, or when the page that wanted it has not looked for a while (its browser tab is gone).
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

WORKERS = 2
MAXIMUM_WAITING = 32
ABANDONED_SECONDS = 180.0  # browsers let the clock of a hidden tab go once a minute

_log = logging.getLogger(__name__)


class JobsFull(RuntimeError):
    """Too many jobs are waiting already."""


class Cancelled(Exception):
    """Raised inside a job by its `report` to end it."""


class Job:
    """A piece of work under way: `progress` 0..1, `preview` (what it has so far), then `result` or `error`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.progress = 0.0
        self.preview: Any = None
        self.result: Any = None
        self.error: Exception | None = None
        self.started: float | None = None
        self.abandoned = False  # whether it was cancelled because no page had looked at it for a while
        self.drawn: dict[Any, Any] = {}  # pictures of its result, kept by who draws it
        self._cancel, self._ended = threading.Event(), threading.Event()
        self._turning = threading.Lock()  # held where it begins or is cancelled: only one of them comes first
        self._seen = time.monotonic()

    @property
    def done(self) -> bool:
        """Whether it has ended: with a result, with an error or cancelled."""
        return self._ended.is_set()

    @property
    def cancelled(self) -> bool:
        return self._cancel.is_set()

    @property
    def seconds_left(self) -> float | None:
        """An estimate from the share done so far; None until there is something to go by."""
        if self.started is None or self.progress < 0.02 or self.done:
            return None
        return (time.monotonic() - self.started) * (1 - self.progress) / self.progress

    def cancel(self, abandoned: bool = False) -> None:
        """Ask it to end; it does so at its next report, at once where it has not begun."""
        with self._turning:
            if self.done or self.cancelled:
                return
            self.abandoned = abandoned
            self._cancel.set()
            if self.started is None:
                self._ended.set()

    def cancel_if_abandoned(self) -> None:
        """Cancel it where nobody has said for a while that they want it."""
        if time.monotonic() - self._seen > ABANDONED_SECONDS:
            self.cancel(abandoned=True)

    def wait(self, seconds: float) -> bool:
        """Wait at most this long for its end; whether it has ended."""
        self.look()
        return self._ended.wait(seconds)

    def look(self) -> None:
        """Say that somebody still wants it."""
        self._seen = time.monotonic()

    def report(self, progress: float, preview: Any = None) -> None:
        """Called from inside the job. Raises Cancelled where it should end."""
        self.cancel_if_abandoned()
        if self._cancel.is_set():
            raise Cancelled
        self.progress = min(1.0, max(self.progress, float(progress)))
        if preview is not None:
            self.preview = preview

    def _run(self, work: Callable[[Job], Any]) -> None:
        with self._turning:
            if self.done:  # cancelled before it began
                return
            self.started = time.monotonic()
        try:
            self.report(0.0)
            self.result = work(self)
            self.progress = 1.0
        except Cancelled:
            pass
        except Exception as error:  # the job's boundary: shown on its page in one sentence
            _log.exception("the job %r failed", self.name)
            self.error = error
        finally:
            self._ended.set()


class JobPool:
    """A few threads for all browser sessions together. Each owner (a session) has one job per name."""

    def __init__(self, workers: int = WORKERS, waiting: int = MAXIMUM_WAITING) -> None:
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="dashboard-job")
        self._limit = workers + waiting
        self._open: dict[int, Job] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def submit(self, name: str, work: Callable[[Job], Any]) -> Job:
        """Start work, or put it in the queue. Raises JobsFull where the queue is full."""
        job = Job(name)
        with self._lock:
            for other in self._open.values():
                other.cancel_if_abandoned()
            self._open = {number: other for number, other in self._open.items() if not other.done}
            if len(self._open) >= self._limit:
                raise JobsFull(f"the dashboard is busy with {len(self._open)} jobs: wait a little and try again")
            self._open[next(self._numbers)] = job
        self._threads.submit(job._run, work)
        return job

    def shut_down(self) -> None:
        """Cancel everything and end the threads."""
        with self._lock:
            for job in self._open.values():
                job.cancel()
        self._threads.shutdown(wait=True, cancel_futures=True)


class SessionJobs:
    """One browser session's jobs by key; starting another under a key cancels the earlier one."""

    def __init__(self, pool: JobPool) -> None:
        self._pool = pool
        self._jobs: dict[str, tuple[Any, Job]] = {}

    def keep(self, key: str, request: Any, work: Callable[[Job], Any]) -> Job:
        """The job under a key, where it is for this request (even if it ended, was cancelled or failed), else a new
        one. Raises JobsFull where the queue is full.
        """
        present = self._jobs.get(key)
        if present is not None:
            if present[0] == request:
                return present[1]
            present[1].cancel()
        job = self._pool.submit(key, work)
        self._jobs[key] = (request, job)
        return job

    def get(self, key: str) -> Job | None:
        """The present job under a key."""
        return self._jobs[key][1] if key in self._jobs else None

    def forget(self, key: str) -> None:
        """Cancel and drop the job under a key, so that it is done anew when it is next asked for."""
        _, job = self._jobs.pop(key, (None, None))
        if job is not None:
            job.cancel()

    def forget_all_but(self, beginning: str, wanted: set[str]) -> None:
        """Forget the jobs whose keys begin so, but for the wanted ones."""
        for key in [key for key in self._jobs if key.startswith(beginning) and key not in wanted]:
            self.forget(key)
