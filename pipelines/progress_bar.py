"""The progress bar of a training: epoch, loss, images/s and time left."""

from __future__ import annotations

import time

from tqdm import tqdm

from gdm_core.training import Progress

REFRESH_SECONDS = 0.2


class ProgressBar:
    """A watcher of training steps; one bar per phase, counting images."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._phase = -1
        self._shown = 0.0

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def announce(self, line: str) -> None:
        tqdm.write(line)

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.phase_index != self._phase:
            self._begin(progress)
        last = progress.end_of_epoch and progress.epoch + 1 == progress.epochs
        if last or now - self._shown > REFRESH_SECONDS:
            self._show(progress)
            self._shown = now
        if last:
            self._close()

    def _begin(self, progress: Progress) -> None:
        self._close()
        self._phase = progress.phase_index
        whole = progress.images_per_epoch * progress.epochs
        begun = progress.epoch * progress.images_per_epoch
        self._bar = tqdm(total=whole, initial=begun, unit="image", unit_scale=True, desc=progress.phase)

    def _show(self, progress: Progress) -> None:
        if self._bar is None:
            return
        self._bar.set_description(f"{progress.phase} epoch {progress.epoch + 1}/{progress.epochs}", refresh=False)
        self._bar.set_postfix(loss=f"{progress.metrics['loss']:.3f}", refresh=False)
        self._bar.n = progress.epoch * progress.images_per_epoch + progress.images
        self._bar.refresh()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
