"""The demo: the main job on real images that are already installed, with faults planted whose place is known."""

from curate.demo.run import Collection, DemoResult, run_demo
from curate.demo.truth import TruthRow

__all__ = ["Collection", "DemoResult", "TruthRow", "run_demo"]
