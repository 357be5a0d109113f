"""Licences: those of the Hub's list, a way out for a typo, and no claim where nothing is known."""

import pytest

from teamsrl_hf.errors import UserError
from teamsrl_hf.publish.licenses import LICENSES, settle_license


def test_our_own_licence_is_for_what_our_own_texts_alone_made():
    assert settle_license(None, ours=True) == "apache-2.0"
    assert settle_license(None, ours=False) == "unknown"
    assert settle_license("mit", ours=True) == settle_license("mit", ours=False) == "mit"


def test_every_identifier_stands_once_and_is_taken():
    assert len(set(LICENSES)) == len(LICENSES)
    assert [settle_license(license, ours=False) for license in LICENSES] == list(LICENSES)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("Apache-2.0", "did you mean apache-2.0"),
        ("CC BY 4.0", "did you mean cc-by-4.0"),
        ("apache2", "apache-2.0"),
        ("llama-3.1", "llama3.1"),
        ("", "such as apache-2.0 or cc-by-4.0"),
    ],
)
def test_a_mistyped_licence_is_an_error_with_the_nearest_ones(given, told):
    with pytest.raises(UserError, match="The Hub knows no licence") as error:
        settle_license(given, ours=False)
    assert told in str(error.value)
