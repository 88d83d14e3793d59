"""The protocols by which models are called, by name.

An entry names the class that sends requests in the protocol, so that its SDK is imported only when
a model is called, and says at which paths such an API stands.
"""

from dataclasses import dataclass

from harness.base.registry import Registry, type_fault


@dataclass(frozen=True, slots=True)
class Provider:
    """A protocol by which models are called."""

    adapter: str
    """Address (``module:name``) of its class of ``harness.agents.clients.client.Adapter``."""
    usual: str = ""
    """The path that an API's address usually has, such as ``/v1``; it is suggested, not added."""
    added: str = ""
    """The path that the adapter adds itself: an address that ends in it is refused."""
    near: tuple[str, ...] = ()
    """Addresses at which to look if no API stands at the given one, likeliest first: ``{base}`` is
    the given address, ``{trunk}`` the same without ``/v1``, ``{origin}`` its server."""

    def __post_init__(self) -> None:
        for pattern in self.near:
            pattern.format(base="", trunk="", origin="")  # a wrong one shows here, not in a run


PROVIDERS: Registry[Provider] = Registry(
    "provider",
    "harness.providers",
    {
        "anthropic": Provider(
            "harness.agents.clients.anthropic:AnthropicAdapter",
            added="/v1",
            near=("{trunk}", "{origin}", "{base}/anthropic"),
        ),
        "openai": Provider(
            "harness.agents.clients.openai:OpenAiAdapter",
            usual="/v1",
            near=("{trunk}", "{trunk}/v1", "{origin}/v1", "{origin}/api/v1"),
        ),
    },
    lambda _, added: type_fault(Provider, added),
)
"""The protocols by name; ``openai`` stands for every server that is compatible with it."""
