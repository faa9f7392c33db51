"""What a page says of its background jobs: why one ended, how to start it again, and that the dashboard is busy."""

from __future__ import annotations

import inspect
import textwrap
import threading

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import jobs
from dashboard.jobs import Job, JobPool, JobsFull
from dashboard.page import sentence

SECONDS = 30
STARTS = "starts"


def script() -> None:
    """A page with one job, which fails when it is first begun."""
    from functools import partial

    import streamlit as st

    from dashboard.job_panel import session_jobs, show_state, watch

    begun, slow = st.session_state.setdefault("starts", []), "slow" in st.session_state

    def work(job) -> str:
        begun.append(job)
        while len(begun) == 1 and slow:
            job.report(0.5)
        if len(begun) == 1:
            raise ValueError("the disk is full")
        return "a grid"

    def draw() -> None:
        if show_state(job, "one", partial(session_jobs().forget, "one")):
            st.caption(job.result)

    job = session_jobs().keep("one", "the same request", work)
    watch([job], draw)


def script_text() -> str:
    """The same as a file."""
    return textwrap.dedent(inspect.getsource(script)) + "\n\nscript()\n"


@pytest.fixture
def test_page() -> AppTest:
    return AppTest.from_function(script, default_timeout=SECONDS)


def the_job(test: AppTest) -> Job:
    return test.session_state["_jobs"].get("one")


def captions(test: AppTest) -> list[str]:
    return [caption.value for caption in test.caption]


def start_again(test: AppTest) -> None:
    next(button for button in test.button if button.label == "Start again").click().run()
    assert the_job(test).wait(SECONDS)
    test.run()


def test_a_failed_job_can_be_started_again(test_page) -> None:
    test_page.run()
    assert the_job(test_page).wait(SECONDS)
    test_page.run()
    assert len(test_page.error) == 1 and len(test_page.session_state[STARTS]) == 1
    start_again(test_page)
    assert not test_page.error and captions(test_page) == ["a grid"]


def test_an_abandoned_job_says_why_it_stopped_and_can_be_started_again(test_page, monkeypatch) -> None:
    test_page.session_state["slow"] = True
    test_page.run()
    monkeypatch.setattr(jobs, "ABANDONED_SECONDS", 0.0)
    assert the_job(test_page)._ended.wait(SECONDS)
    monkeypatch.undo()
    test_page.run()
    assert captions(test_page) == ["Stopped, because no page was looking at it."]
    start_again(test_page)
    assert captions(test_page) == ["a grid"]


def test_a_cancelled_job_says_so(test_page) -> None:
    test_page.session_state["slow"] = True
    test_page.run()
    next(button for button in test_page.button if button.label == "Cancel").click().run()
    assert captions(test_page) == ["Cancelled."]
    start_again(test_page)
    assert captions(test_page) == ["a grid"]


def test_a_full_queue_is_told_in_its_own_words() -> None:
    pool, go_on = JobPool(workers=1, waiting=0), threading.Event()
    running = pool.submit("one", lambda job: go_on.wait(SECONDS))
    with pytest.raises(JobsFull) as full:
        pool.submit("two", lambda job: None)
    assert "dashboard is busy" in sentence(full.value) and "try again" in sentence(full.value)
    go_on.set()
    assert running.wait(SECONDS)
    pool.shut_down()
