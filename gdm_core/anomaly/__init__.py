"""Anomalies: scores of images, calibrated p-values and heat maps. docs/anomaly_scores.md says what they mean."""

from gdm_core.anomaly.calibration import Calibration, calibrate
from gdm_core.anomaly.map_scale import MapScale, fit_map_scale, light, lit_share, normalise_map
from gdm_core.anomaly.maps import MapMethod, map_for, map_images, maps_for
from gdm_core.anomaly.metrics import FalseAlarms, auroc, false_alarm_interval, false_alarms, pixel_auroc
from gdm_core.anomaly.p_values import benjamini_hochberg, p_values, rate_warning, smallest_p, verdicts
from gdm_core.anomaly.scorers import Scorer, get_scorer, list_scorers, score_images, scorer, scorers_for

__all__ = [
    "Calibration", "FalseAlarms", "MapMethod", "MapScale", "Scorer", "auroc", "benjamini_hochberg", "calibrate",
    "false_alarm_interval", "false_alarms", "fit_map_scale", "get_scorer", "light", "list_scorers", "lit_share",
    "map_for", "map_images", "maps_for", "normalise_map", "p_values", "pixel_auroc", "rate_warning", "score_images",
    "scorer", "scorers_for", "smallest_p", "verdicts",
]  # fmt: skip
