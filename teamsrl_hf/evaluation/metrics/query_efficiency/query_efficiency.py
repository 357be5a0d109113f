"""Model calls spent per accepted row, as a measurement of the `evaluate` library."""

import datasets
import evaluate

from teamsrl_hf.evaluation.measures import ledger_calls, query_efficiency

_DESCRIPTION = """How many model calls an accepted row cost, in total and by role, with a 95 % interval over
seeds, and the share of what Evol-Instruct spent (624,000 calls for 250,000 rows). Calls are
read from the ledger of a run."""
_KWARGS = """
Args:
    data: list with the number of accepted rows of each seed, seeds that gave none included.
    ledger: path of the run's ledger.sqlite, or of its folder. Or:
    calls: dict of calls by role.
    calls_per_seed: list of calls of each seed, for the interval; None: as if each seed had cost the same.
    seed: of the resampling.

Returns:
    dict with `calls`, `accepted_rows`, `calls_per_row`, `calls_per_row_interval`, `calls_per_row_by_role`,
    `share_of_baseline_per_row`, `share_of_baseline_total`.
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS)
class QueryEfficiency(evaluate.Measurement):
    def _info(self):
        return evaluate.MeasurementInfo(
            module_type="measurement",
            description=_DESCRIPTION,
            citation="Gu et al., TeaMs-RL, arXiv 2403.08694",
            inputs_description=_KWARGS,
            features=datasets.Features({"data": datasets.Value("int64")}),
        )

    def _compute(self, data, ledger=None, calls=None, calls_per_seed=None, seed=0):
        if (ledger is None) == (calls is None):
            raise ValueError("Give either ledger=PATH or calls={role: number}.")
        found = ledger_calls(ledger) if calls is None else calls
        return query_efficiency(found, [int(rows) for rows in data], calls_per_seed, seed)
