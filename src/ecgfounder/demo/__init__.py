"""The demo: synthetic recordings in Philips files, and a checkpoint of random weights."""

from ecgfounder.demo.demo import WEIGHTS_NOTE, DemoPaths, write_demo, write_demo_cohort
from ecgfounder.demo.weights import write_demo_checkpoint

__all__ = ["WEIGHTS_NOTE", "DemoPaths", "write_demo", "write_demo_checkpoint", "write_demo_cohort"]
