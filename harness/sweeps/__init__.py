"""Many runs from one suite file: their cost is estimated, they run in parallel, and go on."""
