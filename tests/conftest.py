"""Fixtures and settings that every test shares. Numba's cache is pinned here, before anything imports numba."""

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

KERNELS = Path(__file__).parents[1] / "kernels"


def kernel_digest() -> str:
    """Digest of all kernel sources: numba's own disk cache does not see changes in the files that a kernel imports."""
    parts = [path.read_bytes() for path in sorted(KERNELS.rglob("*.py"))]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


USER = os.getuid() if hasattr(os, "getuid") else 0
os.environ["NUMBA_CACHE_DIR"] = str(Path(tempfile.gettempdir()) / f"curate-numba-{USER}-{kernel_digest()}")

settings.register_profile("local", deadline=None, max_examples=60)
settings.register_profile("ci", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded anew for each test."""
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An empty bucket on an S3 server of its own, on loopback: `s3://name`. Indexes of tars are remembered apart."""
    from moto.server import ThreadedMotoServer

    from curate.remote import Remote
    from curate.sources import remembered

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "DEFAULT_REGION": "us-east-1"}.items():
            patch.setenv(f"AWS_{name}", value)
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        cache = tmp_path_factory.mktemp("cache")
        patch.setattr(remembered, "cache_folder", lambda: cache)
        files = Remote("s3://bucket")._files()
        files.mkdir("bucket")
        yield "s3://bucket"
        files.rm("bucket", recursive=True)  # its servers share what they hold
    server.stop()
