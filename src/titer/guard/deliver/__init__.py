"""Delivery: what goes on to other systems, from an outbox that is written in the transaction that decided it (G2)."""
