"""Language models as functions: in goes a request, out comes a completion, recorded and paid for once."""
