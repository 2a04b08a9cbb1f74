"""Receiving: DICOM and DICOMweb in, checked lightly, durable, then acknowledged (G1, G6)."""
