"""Names of models: in goes a specification from a command line or a YAML file, out comes the generator it names."""

import re

from .generation import EndpointGenerator, Generator

FORMS = "'rulebook', 'rulebook:SEED', 'endpoint:MODEL@BASE_URL' or 'transformers:PATH_OR_ID'"


def make_generator(spec: str) -> Generator:
    """The generator that `spec` names.

    Args:
        spec: "rulebook" or "rulebook:SEED" for the embedded rules, "endpoint:MODEL@BASE_URL" for an OpenAI-compatible
            endpoint, "transformers:PATH_OR_ID" for a model loaded into this process.

    Raises:
        ValueError: `spec` has none of these forms, or the generator refuses what it names.
    """
    kind, _, rest = spec.partition(":")
    if spec == "rulebook" or (kind == "rulebook" and re.fullmatch(r"\d+", rest)):
        from .rulebook import Rulebook

        return Rulebook(seed=int(rest or 0))
    endpoint = re.fullmatch(r"(\S+?)@(https?://\S+)", rest)
    if kind == "endpoint" and endpoint:
        return EndpointGenerator(*endpoint.groups())
    if kind == "transformers" and rest.strip():
        from .local_generation import TransformersGenerator

        return TransformersGenerator(rest)
    shown = repr(spec.partition("@")[0])  # What follows may hold a password.
    raise ValueError(f"No model is named by a specification that starts with {shown}; write {FORMS}.")
