"""The way to an endpoint: in go an address and the bodies of requests, out come replies or failures to connect."""

import asyncio
import ipaddress
import json
import os
import re
import ssl
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

from ...errors import UserError
from ...redaction import excerpt, redact, token_variable
from .failure import Failure, undecodable

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

_LONGEST_ANSWER, _LONGEST_FILE = 1 << 25, 1 << 31  # Bytes; more would only fill the memory.
_CA_FILES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_HF_HOSTS = ("huggingface.co", "hf.jobs", "endpoints.huggingface.cloud")  # And every host below them.
_PRIVATE_NAMES = (".local", ".internal", ".lan", ".localhost", ".home.arpa")
_SHARED = ipaddress.ip_network("100.64.0.0/10")  # Carriers and mesh networks; Python does not call it private.
_SECRET_NAME = re.compile(r"key|token|secret|sig|pass|pwd|auth|cred", re.I)


@dataclass(frozen=True)
class Address:
    """Where requests go, and the names of the variables that hold the secrets they carry; `address` makes one."""

    base_url: str
    api_key_env: str | None
    headers: Mapping[str, str]
    query: Mapping[str, str]
    bill_to: str | None
    plain_http: bool

    @property
    def url(self) -> str:
        """The URL of chat completions, without the query."""
        return f"{self.base_url}/chat/completions"

    @property
    def variable(self) -> str | None:
        """Name of the variable that holds the token, or else the value of the first header."""
        return self.api_key_env or next(iter(self.headers.values()), None)

    def credentials(self) -> tuple[dict[str, str], str] | Failure:
        """The headers to send, and the secrets in them, a line each."""
        sent = {} if self.bill_to is None else {"X-HF-Bill-To": self.bill_to}
        token = os.environ.get(self.api_key_env, "").strip() if self.api_key_env else ""
        values = {name: os.environ.get(variable, "").strip() for name, variable in self.headers.items()}
        for variable, value in ((self.api_key_env, token), *zip(self.headers.values(), values.values(), strict=True)):
            if not (value.isascii() and value.isprintable()):
                return Failure(f"the token in {variable} holds characters that no header can carry")
            if not value and variable != self.api_key_env:
                return Failure(f"the environment variable {variable} of a header is not set")
        if token and "authorization" not in {name.lower() for name in values}:
            sent["Authorization"] = f"Bearer {token}"
        return sent | values, "\n".join(filter(None, (token, *values.values())))

    def rendered(self, body: Mapping[str, object]) -> str:
        """A request with this body as text: secrets are replaced by the variables that hold them."""
        headers = {} if self.bill_to is None else {"X-HF-Bill-To": self.bill_to}
        if self.api_key_env and "authorization" not in {name.lower() for name in self.headers}:
            headers["Authorization"] = f"Bearer {_masked(self.api_key_env)}"
        headers |= {name: _masked(variable) for name, variable in self.headers.items()}
        query = f"?{urlencode(self.query)}" if self.query else ""
        lines = (f"{name}: {value}" for name, value in headers.items())
        shown = redact(json.dumps(body, indent=2, ensure_ascii=False))
        return "\n".join([f"POST {self.url}{query}", *lines, shown])

    def proxy(self) -> str | None:
        """URL of the proxy that the environment names for this address, if any. This machine is never behind one.

        Raises:
            UserError: The proxy is not an HTTP proxy.
        """
        scheme, host = _host(self.base_url)
        proxies = getproxies()
        proxy = proxies.get(scheme) or proxies.get("all")
        # What may go over plain http to one address may not go through another machine.
        if not proxy or _is_loopback(host) or self.plain_http or _bypasses(host, self.base_url, proxies):
            return None
        proxy = proxy if "://" in proxy else f"http://{proxy}"
        if not proxy.startswith(("http://", "https://")):
            raise UserError(
                f"The proxy {redact(proxy)} of the environment is no HTTP proxy; unset it, or use another."
            )
        return proxy


def _masked(variable: str) -> str:
    return f"*** ({variable}{'' if os.environ.get(variable, '').strip() else ', which is not set: none is sent'})"


def address(
    base_url: str,
    api_key_env: str | None = None,
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, str] | None = None,
    bill_to: str | None = None,
    plain_http: bool = False,
) -> Address:
    """The checked address of an endpoint. For the arguments, see `EndpointGenerator`.

    Raises:
        UserError: An argument can't be used, or a secret would travel over plain http to another machine.
    """
    headers, query = headers or {}, query or {}
    for name, held_by in headers.items():
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", str(name)):
            raise UserError("headers must map names of headers to names of environment variables.")
        token_variable(held_by, f"the header {name}")
    for name, value in query.items():
        if _SECRET_NAME.search(str(name)):
            raise UserError(f"query may hold no secrets, which {name!r} seems to be; send it as one of headers.")
        if not isinstance(value, str):
            raise UserError(f"{name} of query must be a text, not {value!r}; put it in quotes.")
    if bill_to is not None and not re.fullmatch(r"[\w.-]+", bill_to, re.A):
        raise UserError(f"bill_to must name an organization, not {redact(bill_to)!r}.")
    variable = key_variable(base_url, api_key_env, plain_http, next(iter(headers.values()), None))
    return Address(base_url.rstrip("/"), variable, headers, query, bill_to, plain_http)


def _bypasses(host: str, url: str, proxies: dict[str, str]) -> bool:
    """Whether the environment exempts a host from proxies: by name, suffix or network."""
    if proxy_bypass(urlsplit(url).netloc) or proxy_bypass(host):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for part in proxies.get("no", "").split(","):
        try:
            if address in ipaddress.ip_network(part.strip(), strict=False):
                return True
        except ValueError:
            continue
    return False


@dataclass(frozen=True)
class Reply:
    """What came back: status, headers and decompressed body, and the secrets that were sent, a line each."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    secrets: str


class Line:
    """Sends requests to one address, from one event loop at a time. Open it in each loop.

    Args:
        address: Where to.
        timeout: Seconds one request may take.
    """

    def __init__(self, address: Address, timeout: float):
        self.address, self.timeout = address, timeout
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sessions: AsyncGenerator[ClientSession, None] | None = None
        self._session: ClientSession | None = None
        self._proxy: str | None = None

    async def open(self) -> None:
        """Make the session of the running loop, unless it is there; a session works only in the loop that made it.

        Raises:
            UserError: The environment names a proxy or certificates that can't be used.
        """
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            self._sessions, self._proxy = _open_sessions(self.timeout), self.address.proxy()
            self._session = await anext(self._sessions)
            self._loop = loop

    async def close(self) -> None:
        """Close the connections."""
        self._loop = None
        if self._sessions is not None:
            await self._sessions.aclose()

    async def send(self, body: Mapping[str, object]) -> Reply | Failure:
        """Post the JSON body of a chat completion; see `exchange`."""
        return await self.exchange("POST", self.address.url, most=_LONGEST_ANSWER, json=body)

    async def exchange(
        self,
        method: str,
        url: str,
        more_headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        most: int = _LONGEST_FILE,
        **content: Any,
    ) -> Reply | Failure:
        """Send one request; `content` is `json` or `data`, as aiohttp takes it, `most` the bytes that may come back.

        A failure is `gone` if nobody listens at the address.
        """
        import aiohttp

        assert self._session is not None, "open() comes first"
        if isinstance(credentials := self.address.credentials(), Failure):
            return credentials
        headers, secrets = credentials
        try:
            # A redirect might send the token to another host.
            async with self._session.request(
                method,
                url,
                headers={**headers, **more_headers} if more_headers else headers,
                params={**self.address.query, **(query or {})} or None,
                proxy=self._proxy,
                allow_redirects=False,
                **content,
            ) as response:
                body = await _read(response, most)
                if body is None:
                    return undecodable(f"a body of more than {most:,} bytes")
                return Reply(response.status, response.headers, body, secrets)
        except TimeoutError as error:
            sent = not isinstance(error, aiohttp.ConnectionTimeoutError)
            return Failure(f"no answer within {self.timeout:g} s", retry=True, uncounted=sent)
        except (aiohttp.ClientError, OSError) as error:
            if (unreadable := _unreadable(error)) is not None:
                return undecodable(excerpt(unreadable, secrets))
            final = isinstance(error, aiohttp.ClientSSLError)  # A bad certificate is still bad a second later.
            reason = excerpt(f"connection failed: {type(error).__name__}: {error}", secrets)
            connected = not isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientHttpProxyError)
            gone = isinstance(error, aiohttp.ClientConnectorError) and not final
            return Failure(reason, not final, gone=gone, uncounted=connected)


async def _read(response: "ClientResponse", most: int) -> bytes | None:
    """The decompressed body, None where it is longer than `most` bytes."""
    parts, size = list[bytes](), 0
    async for part in response.content.iter_any():
        parts.append(part)
        if (size := size + len(part)) > most:
            return None
    return b"".join(parts)


def _unreadable(error: Exception) -> str | None:
    """What aiohttp says of a response that it can't parse or decompress; None for any other error."""
    import aiohttp

    if isinstance(error, aiohttp.ClientResponseError) and not isinstance(error, aiohttp.ClientHttpProxyError):
        return error.message
    cause = error.__cause__
    return cause.message if isinstance(cause, aiohttp.http_exceptions.ContentEncodingError) else None


async def _open_sessions(timeout: float) -> AsyncGenerator["ClientSession", None]:
    """One session. A generator, because `asyncio.run` closes those that are still open when its loop ends."""
    import aiohttp

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=_certificates() or True),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=timeout),
    ) as session:
        yield session


def _certificates() -> ssl.SSLContext | None:
    """The certificates that the environment trusts, None for those of the system."""
    files = {name: path for name in _CA_FILES if (path := os.environ.get(name))}
    folder = os.environ.get("SSL_CERT_DIR")
    if not (files or folder):
        return None
    name, path = next(iter(files.items()), ("SSL_CERT_DIR", folder))
    try:
        whole = os.path.isdir(path or "")  # requests takes a folder in place of a file.
        return ssl.create_default_context(cafile=None if whole else path, capath=path if whole else None)
    except OSError as error:
        raise UserError(f"{name} names no file of certificates that can be read: {error}.") from error


def key_variable(base_url: str, given: str | None, plain_http: bool = False, header: str | None = None) -> str | None:
    """Name of the variable that holds the token for this endpoint, or None when no token may be sent.

    Args:
        base_url: Address of the endpoint.
        given: Name from the user, "" for no token, None for the default of the host.
        plain_http: Whether the user allows a token over plain http to a private address.
        header: Name of the variable of another secret that is sent.
    """
    scheme, host = _host(base_url)
    if not host or set(base_url) & set("@?#"):
        given = "one with '@', '?' or '#'" if set(base_url) & set("@?#") else repr(redact(base_url))
        raise UserError(f"base_url must be like 'https://host/v1', not {given}; put a token into the environment.")
    name = _default_variable(host) if given is None else given and token_variable(given)
    if scheme == "http" and not _is_loopback(host) and not (plain_http and _is_private(host)):
        if given or header or (name and os.environ.get(name)):
            raise UserError(
                f"The token in {header or name} would go over plain http to {host}; use https, or api_key_env='' to "
                f"send none{', or plain_http: true' if _is_private(host) else ''}."
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
    if any(host == known or host.endswith(f".{known}") for known in _HF_HOSTS):
        return "HF_TOKEN"
    return "OPENAI_API_KEY" if host == "api.openai.com" else "TEAMSRL_API_KEY"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_private(host: str) -> bool:
    """Whether a host belongs to a private network: by its address, or by a name that no public server has."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(_PRIVATE_NAMES)
    return address.is_private or (address.version == 4 and address in _SHARED)
