"""Redaction: in go texts for terminals, logs and files, out come the same without secrets.

Secrets are the values of variables that hold tokens, and the user, password and query of a URL. Known forms of tokens
are redacted too, but no list of them is complete.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

from .errors import UserError, did_you_mean

# Names of environment variables that hold tokens; `token_variable` adds those that specifications name.
_VARIABLES = {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "TEAMSRL_API_KEY"}
_FORMS = (
    r"\bbearer\s+[^\s'\",]+"
    r"|\b(?:hf|gsk|ghp|gho|r8|tgp|api_org|github_pat|pk|rk)_[\w.*-]{8,}"
    r"|\b(?:sk|xai|nvapi|pplx|fw|csk|glpat|xox[abp])-[\w.*-]{8,}"
    r"|\bAIza[\w*-]{20,}|\b(?:AKIA|ASIA)[A-Z0-9]{12,}|\beyJ[\w-]{10,}\.[\w.*-]{10,}"
)
_TOKEN = re.compile(_FORMS, re.I)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.I)
# A user and a password before a host, and what stands for that in a URL. A model before an endpoint's URL is none.
_LOGIN = re.compile(r"(?:(?<![\w/])|(?<=//))(?!endpoint:)[^\s'\"<>@/:={}]+:[^\s'\"<>/{}]+@(?!https?://)")
_LOGIN_IN_URL = re.compile(r"^(?:[^/?#]*(?:@|%40)|[^/]*:.*(?:@|%40))")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_KEY_IN_QUERY = re.compile(r"[?&#;][^=&]*(?:key|token|secret|sig|pass|pwd|auth|cred)[^=&]*=", re.I)


def redact(text: str) -> str:
    """`text` with `***` for each secret in it.

    >>> redact("GET https://ada:pw@host/v1?key=5f2a failed"), redact("Bearer 5f2a")
    ('GET https://***@host/v1?*** failed', '***')
    """
    for value in _token_values():
        text = text.replace(value, "***")
    text = _TOKEN.sub("***", _URL.sub(lambda found: _masked_url(found[0]), text))
    return _LOGIN.sub("***@", text)


def _token_values() -> list[str]:
    """Values of the variables, longest first, also as libraries strip them; short ones, such as EMPTY, are public."""
    held = [os.environ.get(name, "") for name in _VARIABLES]
    forms = {form for value in held for form in (value, value.strip(), "".join(value.split()), *value.split())}
    return sorted((form for form in forms if len(form) > 5), key=len, reverse=True)


def _masked_url(url: str) -> str:
    scheme, _, rest = url.partition("://")
    rest = _LOGIN_IN_URL.sub("***@", rest)
    place = re.split("[?#]", rest, maxsplit=1)[0]
    mark, query = rest[len(place) :][:1], rest[len(place) + 1 :]
    return f"{scheme}://{place}{mark}{'***' if query else ''}"


def visible(text: str) -> str:
    r"""`text` with a mark in place of each character that moves a terminal's cursor or reverses text.

    >>> visible("a\x1b[2Jb\u202ec\n")
    'a�[2Jb�c\n'
    """
    return _CONTROL.sub("�", text)


def shown(text: object) -> str:
    r"""A message or a name from data on one line of a terminal, without secrets and control characters.

    >>> shown("see\nhttps://ada:pw@host \x1b[2J")
    'see https://***@host �[2J'
    """
    return " ".join(visible(redact(str(text))).split())


def excerpt(text: str, token: str = "", shared: int = 6) -> str:
    """One line of a server's answer, at most 200 characters, without tags.

    Words that share at least `shared` characters with the token are redacted, since servers repeat parts of what they
    refuse.
    """
    size = min(shared, len(token))
    parts = {token[start : start + size] for start in range(len(token) - size + 1)} - {""}
    words = re.split(r"([\s\"',;<>(){}]+)", redact(re.sub(r"<[^>]*>", " ", text[:4000])))
    clean = "".join("***" if any(part in word for part in parts) else word for word in words)
    return " ".join(visible(clean).replace("�", " ").split())[:200]


def token_variable(name: str, option: str = "api_key_env") -> str:
    """The checked name of a variable that holds a token: a token in its place would be published like a name.

    Args:
        name: The name.
        option: What gave it, for the message.

    Raises:
        UserError: No such variable is set; the message does not show `name`, which may be the token.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(name)) or not os.environ.get(name):
        raise UserError(
            f"{option} must name an environment variable that is set and holds the token; what was given is no such "
            f"name, and is not shown, since it might be the token itself{did_you_mean(name, os.environ)}"
        )
    _VARIABLES.add(name)
    return name


def refuse_secrets(name: str, value: Any) -> None:
    """UserError if an option has a URL with a login or a key, since options are written into run.json and cards."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            refuse_secrets(f"{name}: {key}" if str(key).isidentifier() else name, part)
    elif isinstance(value, list | tuple):
        for part in value:
            refuse_secrets(name, part)
    elif isinstance(value, str):
        urls = [url.partition("://")[2] for url in _URL.findall(value)]
        if _LOGIN.search(value) or any(_LOGIN_IN_URL.match(url) or _KEY_IN_QUERY.search(url) for url in urls):
            raise UserError(
                f"{name} holds a URL with a user, a password or a key; put the token into the environment."
            )
