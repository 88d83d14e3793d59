"""A run in one file that a stranger can check: packing it, and reading one that anybody sent."""

from harness.report.bundle.pack import pack
from harness.report.bundle.verify import Check, verify

__all__ = ["Check", "pack", "verify"]
