"""The wire of an OpenAI-compatible endpoint: in goes a request, out comes a completion or the reason of a failure."""
