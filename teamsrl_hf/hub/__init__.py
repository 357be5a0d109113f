"""The one way to the Hub: in goes a finished folder, out comes the URL of the one commit that holds it."""
