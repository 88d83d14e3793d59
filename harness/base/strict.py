"""The base of models whose values come from a file: what is unknown in it is an error."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A model without room for unknown keys, whose fields cannot be set again."""

    model_config = ConfigDict(extra="forbid", frozen=True)
