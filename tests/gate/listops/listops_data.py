"""The data of lra/listops, at this task's sizes."""

from tasks.lra.listops.data import prepare

__all__ = ["prepare"]
