"""The kept set, searched: nearest kept samples by image and by caption, and duplicates among them."""

from curate.neighbors.kept import EXACT, Alike, Found, KeptIndex

__all__ = ["EXACT", "Alike", "Found", "KeptIndex"]
