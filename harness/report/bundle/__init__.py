"""Bundles: pack a run into one archive file, and check an archive from an untrusted sender."""

from harness.report.bundle.pack import pack
from harness.report.bundle.verify import Check, verify

__all__ = ["Check", "pack", "verify"]
