"""Methods for image-text pairs. A literal table: nothing is imported until a method is made."""

from __future__ import annotations

from curate_selectors.entry import Entry

METHODS: dict[str, Entry] = {}
