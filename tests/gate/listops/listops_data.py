"""Makes the data with the generator of lra/listops; this task's task.toml sets the sizes."""

from tasks.lra.listops.data import prepare

__all__ = ["prepare"]
