"""The way to an endpoint: in go an address and its options, out come credentials and HTTP sessions."""

import ipaddress
import os
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ...errors import UserError
from ...redaction import redact, token_variable

if TYPE_CHECKING:
    from aiohttp import ClientSession


async def open_sessions(timeout: float) -> AsyncGenerator["ClientSession", None]:
    """One session. A generator, because `asyncio.run` closes those that are still open when its loop ends."""
    import aiohttp

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=timeout),
    ) as session:
        yield session


def key_variable(base_url: str, given: str | None) -> str | None:
    """Name of the variable that holds the token for this endpoint, or None when no token may be sent."""
    scheme, host = _host(base_url)
    if not host or set(base_url) & set("@?#"):
        given = "one with '@', '?' or '#'" if set(base_url) & set("@?#") else repr(redact(base_url))
        raise UserError(f"base_url must be like 'https://host/v1', not {given}; put a token into the environment.")
    name = _default_variable(host) if given is None else given and token_variable(given)
    if scheme == "http" and not _is_loopback(host):
        if given or (name and os.environ.get(name)):
            raise UserError(
                f"The token in {name} would go over plain http to {host}; use https, or api_key_env='' to send none."
            )
        return None
    return name or None


def _host(url: str) -> tuple[str, str]:
    """Scheme and host of a URL; both empty where it is no web address."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # Raises if it is no number.
    except ValueError:
        return "", ""
    return (parts.scheme, parts.hostname) if parts.scheme in ("http", "https") and parts.hostname else ("", "")


def _default_variable(host: str) -> str:
    if host == "huggingface.co" or host.endswith(".huggingface.co"):
        return "HF_TOKEN"
    return "OPENAI_API_KEY" if host == "api.openai.com" else "TEAMSRL_API_KEY"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
