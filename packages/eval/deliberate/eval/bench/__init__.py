"""Benchmarks through lm-evaluation-harness, the base beside the base with latents.

Importing this package needs no harness; `deliberate.eval.bench.run` and what it imports do.
"""
