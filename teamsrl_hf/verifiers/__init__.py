"""Verifiers: in go answers and the constraints that their rows carry, out comes which of them code finds kept.

To check a published file again, nothing but this package is needed:

    from teamsrl_hf.verifiers import Verifier, verified
    row = datasets.load_dataset("ada/rows")["train"][0]
    verified(row["completion"][-1]["content"], [Verifier(**one) for one in row["verifiers"]])
"""

from ..types import Verifier as Verifier
from .proofs import HELD_OUT as HELD_OUT
from .proofs import KINDS as KINDS
from .proofs import Constraint as Constraint
from .proofs import Proof as Proof
from .proofs import as_ifeval as as_ifeval
from .proofs import go_together as go_together
from .proofs import named_in as named_in
from .proofs import passes as passes
from .proofs import said as said
from .proofs import sample as sample
from .proofs import verified as verified
from .proofs import verifier as verifier
from .reward import verifier_reward as verifier_reward
