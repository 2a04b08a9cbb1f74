"""Anomaly detection on chest X-rays: what is normal is learned, and pneumonia is whatever is not."""

from __future__ import annotations

from titer.core.plugins import modality
from titer.core.protocols import Modality
from titer.core.record import ClinicalData
from titer.modalities._pneumonia import FILE, pneumonia

FILES = (FILE,)


@modality("xray-anomaly")
def xray_anomaly() -> Modality:
    """Paediatric chest X-rays (PneumoniaMNIST) as a search for anomalies: normal, or pneumonia as the anomaly.

    The network `anomaly-autoencoder` learns the normal images of the training part alone.
    """

    def load() -> ClinicalData:
        title = "Anomalies of paediatric chest X-rays (PneumoniaMNIST)"
        return pneumonia("xray-anomaly", title, ("normal", "anomaly"))

    return load
