"""The pool: a Lance table with one row for every sample ever seen, and the engine's state beside it.

    POOL/samples.lance   the rows; each commit carries the name of the state that it belongs to
    POOL/state/          <step>-<digest>.json, and the sums that it names; written before the commit
    POOL/captions/    what captioners said about refused images; a cache
    POOL/write.lock      held by the one process that writes

The Lance commit is the only commit point. A state file that no version names is garbage; the writer removes it.
"""

from curate.pool.reader import Pool
from curate.pool.schema import CAPTIONS, EMBEDDINGS, PATCHES, QUALITY, STATE_PROPERTY, VIEWS, table_schema, vectors
from curate.pool.writer import Writer

__all__ = [
    "CAPTIONS",
    "EMBEDDINGS",
    "PATCHES",
    "QUALITY",
    "STATE_PROPERTY",
    "VIEWS",
    "Pool",
    "Writer",
    "table_schema",
    "vectors",
]
