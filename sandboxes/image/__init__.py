"""The image of the backend ``docker``: what is in it, and two ways to make it."""
