"""Operation: metrics, health, retention, backup, the demo and the case study."""
