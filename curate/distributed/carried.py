"""What goes to workers and comes back: named arrays, functions, errors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from curate.errors import ClusterError, CurateError
from curate.version import __version__
from curate_selectors.errors import SelectorError

Arrays = Mapping[str, Any]

_RAYS_WORDS = "\nFailed to apply UDF"


def packed(arrays: Arrays) -> bytes:
    """Return named arrays as safetensors."""
    from safetensors.numpy import save

    return bytes(save({name: np.asarray(value, order="C") for name, value in arrays.items()}))


def unpacked(data: Any) -> dict[str, Any]:
    """Return the arrays of an Arrow value that `packed` made."""
    from safetensors.numpy import load

    return dict(load(data.as_buffer().to_pybytes()))


def has_gpus(ray: Any) -> bool:
    """Tell whether any machine of the cluster has a GPU."""
    return bool(ray.cluster_resources().get("GPU", 0))


def once(ray: Any, function: Callable[..., Any], *given: Any, gpu: bool = False) -> Any:
    """Return what a function gives on a machine of the cluster. Raises as `named` tells.

    gpu: it wants one of the GPUs, if there are any; only while nothing may hold them all. Else it waits for nothing.
    """
    task = ray.remote(num_cpus=0, num_gpus=1 if gpu and has_gpus(ray) else 0)(_call)
    try:
        return ray.get(task.remote(function, *given))
    except ray.exceptions.RayError as error:
        raise named(error) from error


def _call(function: Callable[..., Any], *given: Any) -> Any:
    return function(*given)


def check(ray: Any) -> None:
    """Raise ClusterError where a worker has no curate, which Ray Data would repeat without end, or another version."""
    found = once(ray, version)
    if found != __version__:
        raise ClusterError(f"a worker has curate {found}, and here it is {__version__}; install one on each machine")


def version() -> str:
    """Return the version of curate where this runs."""
    return __version__


def loaded(reference: Any) -> Any:
    """Return what the function behind a reference makes. Raises ClusterError where it cannot be loaded here."""
    import ray

    try:
        return ray.get(reference)()
    except ray.exceptions.RaySystemError as error:  # which Ray would repeat without end
        raise ClusterError(f"a worker cannot load its function: {error}") from error


def quiet(dataset: Any) -> Any:
    """Return a dataset that tells of itself in its log files only, and raises what its functions raise."""
    for name in ("ray.data", "ray._private"):
        logging.getLogger(name).setLevel(logging.ERROR)
    dataset.context.enable_progress_bars = False
    dataset.context.raise_original_map_exception = True
    return dataset


def named(error: Exception) -> Exception:
    """Return the named error that a worker raised, without Ray's words, else one that says that the cluster failed."""
    cause = getattr(error, "cause", None)
    told = str(cause or error).partition(_RAYS_WORDS)[0].strip()
    if isinstance(cause, (CurateError, SelectorError)):
        cause.args = (told, *cause.args[1:])
        return cause
    missing = "; install curate on each machine" if "ModuleNotFoundError" in told else ""
    return ClusterError(f"the Ray cluster could not do its part: {told.splitlines()[-1]}{missing}")
