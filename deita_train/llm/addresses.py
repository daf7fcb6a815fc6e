"""What may stand in a recipe for a server's address and for the name of a key's variable; imports nothing heavy."""

import re
from urllib.parse import urlsplit

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def address_problem(url: str) -> str | None:
    """Why this is no address of a server, or one that must not be written to files; None for a good one.

    The address itself is not repeated, as it may hold a password.
    """
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or half an IPv6 address
        return _NO_ADDRESS
    if not is_address or re.search(r"\s", url):
        return _NO_ADDRESS
    if parts.username or parts.password or parts.query or parts.fragment:
        return (
            "holds a user, a password, a query or a fragment, which would be written to files. A key belongs in an "
            "environment variable that api_key_env names."
        )
    if parts.path.rstrip("/").endswith("/chat/completions"):
        return "ends in /chat/completions, which the client adds itself; leave that out."
    return None


_NO_ADDRESS = "is no address of a server; write it like http://localhost:8000/v1."


def variable_problem(name: str) -> str | None:
    """Why this is no name of an environment variable; None for one. It is not repeated, as it may be the key itself."""
    if _VARIABLE.fullmatch(name):
        return None
    return "is no name of an environment variable, such as OPENAI_API_KEY. If it is the key itself, take it out here."
