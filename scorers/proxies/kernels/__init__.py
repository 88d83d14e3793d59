"""The batched trainer's own GPU kernels, in Triton. Importing them needs Triton."""
