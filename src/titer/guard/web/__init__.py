"""Pages and interfaces over HTTP: review, viewer, dashboard, accounts, metrics, health."""
