"""Many runs from one file: expanded, estimated, run side by side, and gone on with."""
