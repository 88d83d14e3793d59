"""The stand-in for Image: Fashion-MNIST in place of CIFAR-10."""

from tasks.lra.image.data import prepare_fashion as prepare

__all__ = ["prepare"]
