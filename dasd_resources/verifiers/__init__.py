"""Verifiers: whether a final answer is correct, recorded for every response (report §4 compares right with wrong).

An answer is model output: it is compared, or run in a sandbox, and no answer makes a verifier raise. Each verifier is a
module of this package and an entry of `catalogue.VERIFIERS` (docs/extending.md).
"""
