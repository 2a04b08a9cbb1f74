"""Pages and interfaces over HTTP: review, dashboard, accounts, inference, DICOMweb."""
