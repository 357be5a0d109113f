"""Licences for cards: in goes an identifier, out comes one that the Hub knows, or an error that names the nearest."""

from difflib import get_close_matches

from ..errors import UserError

# What the Hub takes as `license`: docs/hub/repositories-licenses.md of github.com/huggingface/hub-docs.
LICENSES = (
    *("apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m", "bigscience-bloom-rail-1.0"),
    *("bigcode-openrail-m", "afl-3.0", "artistic-2.0", "bsl-1.0", "bsd", "bsd-2-clause", "bsd-3-clause"),
    *("bsd-3-clause-clear", "c-uda", "cc", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0"),
    *("cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0"),
    *("cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"),
    *("cdla-sharing-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "wtfpl", "ecl-2.0", "epl-1.0", "epl-2.0"),
    *("etalab-2.0", "eupl-1.1", "eupl-1.2", "agpl-3.0", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1"),
    *("lgpl-3.0", "isc", "h-research", "intel-research", "lppl-1.3c", "ms-pl", "apple-ascl", "apple-amlr", "mpl-2.0"),
    *("odc-by", "odbl", "open-mdw", "openmdw-1.0", "openrail++", "osl-3.0", "postgresql", "ofl-1.1", "ncsa"),
    *("unlicense", "zlib", "pddl", "lgpl-lr", "deepfloyd-if-license", "fair-noncommercial-research-license"),
    *("llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", "grok2-community", "gemma"),
    *("unknown", "other"),
)
# Of the built-in seeds, the rulebook and what these alone make.
OWN_LICENSE = "apache-2.0"


def settle_license(given: str | None, ours: bool) -> str:
    """The licence for a card: the given one, else our own if only our texts and rules were used, else "unknown".

    Raises:
        UserError: The Hub does not know the given one, and would refuse the card.
    """
    if given is None:
        return OWN_LICENSE if ours else "unknown"
    if given in LICENSES:
        return given
    near = get_close_matches(given.lower().replace(" ", "-"), LICENSES, n=3, cutoff=0.4)
    instead = f"did you mean {' or '.join(near)}" if near else "such as apache-2.0 or cc-by-4.0"
    raise UserError(
        f"The Hub knows no licence {given!r} ({instead}); give one of its identifiers, or 'other' for one it lacks."
    )
