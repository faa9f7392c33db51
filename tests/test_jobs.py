"""Background jobs: progress, time left, cancel, errors, bounds, and one session's jobs apart from another's."""

from __future__ import annotations

import threading
import time

import pytest

from dashboard import jobs
from dashboard.jobs import Job, JobPool, JobsFull, SessionJobs


@pytest.fixture
def pool():
    pool = JobPool(workers=2, waiting=3)
    yield pool
    pool.shut_down()


def endless(job: Job) -> None:
    while True:
        job.report(0.1)
        time.sleep(0.002)


def test_result_progress_and_preview(pool):
    half, go_on = threading.Event(), threading.Event()

    def work(job: Job) -> str:
        job.report(0.5, "so far")
        half.set()
        assert go_on.wait(5)
        return "whole"

    job = pool.submit("sample", work)
    assert half.wait(5) and not job.done
    assert (job.progress, job.preview, job.result) == (0.5, "so far", None)
    assert 0 <= job.seconds_left < 60
    go_on.set()
    assert job.wait(5) and (job.progress, job.result, job.error, job.seconds_left) == (1.0, "whole", None, None)


def test_progress_never_falls_nor_leaves_0_to_1():
    job = Job("x")
    job.report(0.6)
    job.report(0.2)
    assert job.progress == 0.6
    job.report(7)
    assert job.progress == 1.0


def test_cancelled_jobs_end_without_a_result(pool):
    job = pool.submit("sample", endless)
    job.cancel()
    assert job.wait(5) and job.cancelled and job.result is None and job.error is None


def test_a_cancelled_job_that_waits_never_begins(pool):
    running = [pool.submit("busy", endless) for _ in range(2)]
    began = threading.Event()
    waiting = pool.submit("waiting", lambda job: began.set())
    waiting.cancel()
    for job in running:
        job.cancel()
    assert waiting.wait(5) and not began.is_set()


def test_a_cancelled_job_that_waits_ends_at_once_and_leaves_its_place_to_another(pool):
    running = [pool.submit("busy", endless) for _ in range(2)]
    waiting = [pool.submit("waiting", endless) for _ in range(3)]
    for job in waiting:
        job.cancel()
    assert all(job.done and job.cancelled and job.started is None for job in waiting)
    others = [pool.submit("next", lambda job: 3) for _ in range(3)]
    for job in running:
        job.cancel()
    assert all(job.wait(5) and job.result == 3 for job in others)


def test_many_changes_of_mind_do_not_fill_the_queue():
    """Nine models on Samples and a temperature that is moved ten times."""
    pool = JobPool()
    session = SessionJobs(pool)
    for temperature in range(10):
        jobs_now = [session.keep(f"samples {model}", temperature, endless) for model in range(9)]
    assert not any(job.cancelled for job in jobs_now)
    pool.shut_down()


def test_a_job_that_has_ended_is_no_longer_cancelled(pool):
    job = pool.submit("sample", lambda job: "grid")
    assert job.wait(5)
    job.cancel()
    assert job.result == "grid" and not job.cancelled


def test_errors_are_kept_for_the_page(pool):
    job = pool.submit("sample", lambda job: 1 / 0)
    assert job.wait(5) and isinstance(job.error, ZeroDivisionError) and not job.cancelled


def test_a_job_nobody_looks_at_ends(pool, monkeypatch):
    monkeypatch.setattr(jobs, "ABANDONED_SECONDS", 0.05)
    job = pool.submit("sample", endless)
    assert job._ended.wait(5) and job.cancelled and job.abandoned


def test_a_cancelled_job_is_not_called_abandoned(pool, monkeypatch):
    job = pool.submit("sample", endless)
    job.cancel()
    monkeypatch.setattr(jobs, "ABANDONED_SECONDS", 0.0)
    assert job.wait(5)
    job.cancel_if_abandoned()
    assert job.cancelled and not job.abandoned


def test_a_hidden_tab_whose_clock_goes_once_a_minute_keeps_its_jobs():
    assert jobs.ABANDONED_SECONDS > 2 * 60


def test_waiting_jobs_that_nobody_looks_at_leave_their_places(pool, monkeypatch):
    started = [pool.submit("busy", endless) for _ in range(5)]
    monkeypatch.setattr(jobs, "ABANDONED_SECONDS", 0.0)
    pool.submit("one more", endless).cancel()
    assert all(job.cancelled and job.abandoned for job in started)


def test_looking_keeps_a_job_alive(pool, monkeypatch):
    monkeypatch.setattr(jobs, "ABANDONED_SECONDS", 0.5)
    job = pool.submit("sample", endless)
    for _ in range(8):
        assert not job.wait(0.1)
    job.cancel()


def test_jobs_are_bounded(pool):
    started = [pool.submit("busy", endless) for _ in range(5)]
    with pytest.raises(JobsFull, match="try again"):
        pool.submit("one more", endless)
    for job in started:
        job.cancel()
    assert all(job.wait(5) for job in started)
    assert pool.submit("now", lambda job: 3).wait(5)


def test_one_key_of_a_session_has_one_job(pool):
    session = SessionJobs(pool)
    first = session.keep("samples", "seed 0", endless)
    assert session.keep("samples", "seed 0", endless) is first
    second = session.keep("samples", "seed 1", lambda job: "grid")
    assert first.wait(5) and first.cancelled
    assert second.wait(5) and session.get("samples") is second
    assert session.keep("samples", "seed 1", endless) is second  # a finished job answers again
    session.forget("samples")
    assert session.get("samples") is None


def test_a_cancelled_job_stays_cancelled_until_it_is_forgotten(pool):
    session = SessionJobs(pool)
    job = session.keep("samples", "seed 0", endless)
    job.cancel()
    assert session.keep("samples", "seed 0", endless) is job  # a page that is drawn again does not start it again
    session.forget("samples")
    again = session.keep("samples", "seed 0", lambda job: 5)
    assert again is not job and again.wait(5) and again.result == 5


def test_jobs_no_longer_wanted_are_cancelled(pool):
    session = SessionJobs(pool)
    kept, dropped = session.keep("samples a", 0, endless), session.keep("samples b", 0, endless)
    session.forget_all_but("samples ", {"samples a"})
    assert dropped.wait(5) and dropped.cancelled and not kept.cancelled
    kept.cancel()


def test_sessions_do_not_see_each_other(pool):
    mine, yours = SessionJobs(pool), SessionJobs(pool)
    job = mine.keep("samples", "seed 0", endless)
    assert yours.get("samples") is None
    yours.keep("samples", "seed 1", lambda job: 1).wait(5)
    assert not job.done
    job.cancel()
