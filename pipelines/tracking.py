"""Tracking and registry: the one door for training, the command line and the dashboard."""

from pipelines.run_writer import MlflowTracker
from pipelines.store import store_address
from pipelines.tracker import StoreError, Tracker

__all__ = ["MlflowTracker", "StoreError", "Tracker", "store_address"]
