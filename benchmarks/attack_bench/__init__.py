"""The parts of `benchmarks/attacks.py`; what runs beside a peer imports torch and NumPy only, never Titer."""
