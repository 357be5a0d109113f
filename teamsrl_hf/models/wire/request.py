"""The body of a chat completion request: in go a request and the model's name, out comes what the endpoint wants."""

from ..base import Request, request_seed


def payload(request: Request, model: str) -> dict[str, object]:
    """The body of a chat completion request."""
    # Always with max_tokens: servers' own defaults differ, and some cut answers after a few words.
    sampling, seed = request.sampling, request_seed(request)
    payload = {
        "model": model,
        "messages": list(request.messages),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
    }
    return payload if seed is None else payload | {"seed": seed}
