"""Bundles: pack a run into one archive file, and check an archive from an untrusted sender."""
