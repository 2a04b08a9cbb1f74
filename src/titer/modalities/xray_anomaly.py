"""Anomaly detection on chest X-rays: what is normal is learned, and pneumonia is whatever is not."""

from __future__ import annotations

from titer.core.plugins import modality
from titer.core.protocols import Modality
from titer.core.record import ClinicalData
from titer.modalities._checks import checked
from titer.modalities._files import fetch
from titer.modalities._images import grey_box, image_units
from titer.modalities._pneumonia import FILE, RANGE, SOURCE, pneumonia_parts

FILES = (FILE,)


@modality("xray-anomaly")
def xray_anomaly() -> Modality:
    """Paediatric chest X-rays (PneumoniaMNIST) as a search for anomalies: normal, or pneumonia as the anomaly.

    The network `anomaly-autoencoder` learns the normal images of the training part alone.
    """

    def load() -> ClinicalData:
        path = fetch(FILES[0])
        return checked(
            ClinicalData(
                name="xray-anomaly",
                title="Anomalies of paediatric chest X-rays (PneumoniaMNIST)",
                kind="image",
                source=SOURCE,
                licence="CC BY 4.0",
                classes=("normal", "anomaly"),
                positive=1,
                pool=None,
                fixed=pneumonia_parts(path),
                domain=(grey_box(RANGE),),
                units=image_units(RANGE),
                value_range=RANGE,
            )
        )

    return load
