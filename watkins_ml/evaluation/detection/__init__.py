"""Detections in continuous recordings against what somebody marked there: matching, curves, PSDS, intervals."""
