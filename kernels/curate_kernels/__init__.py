"""Numba kernels: pure functions on arrays. No files, no classes, no randomness, nothing raised.

Families: `topk` (running nearest neighbours), `admit` (the online decision), `kcenter` (farthest point),
`vinfo` (pointwise V-information from leverages and from class scores).
"""
