"""A manifest in the formats that trainers and viewers already read; docs/exports.md."""

from curate.exports.run import Exported, export

__all__ = ["Exported", "export"]
