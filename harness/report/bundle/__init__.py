"""Bundles: pack a run into one archive file, and check an archive from an untrusted sender."""

from harness.report.bundle.pack import pack
from harness.report.bundle.verify import BundleCheck, verify

__all__ = ["BundleCheck", "pack", "verify"]
