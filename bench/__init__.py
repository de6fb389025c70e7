"""Measurements. `python -m bench NAME [--json OUT] [--smoke]` runs bench/bench_NAME.py."""
