"""What every attack shares: live rows, micro-batches, metering."""
