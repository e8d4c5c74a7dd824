"""A local page to look at a pool and decide: search, filter, slide thresholds, keep, drop and relabel by keyboard."""

from curate.view.serve import serve

__all__ = ["serve"]
