"""Share of rewritten instructions that break no elimination rule, as a measurement of the `evaluate` library."""

import datasets
import evaluate

from teamsrl_hf.evaluation.measures import validity_measures

_DESCRIPTION = """Share of rewrites that break none of the elimination rules of Evol-Instruct (and of one more,
for control tokens and clauses of the prompt), with a 95 % Wilson interval and counts by rule;
the same for answers when they are given. The rules find what is broken, not what is poor."""
_KWARGS = """
Args:
    data: list of rewritten instructions.
    instructions: list of as many instructions they were rewritten from.
    responses: list of as many answers, or None.

Returns:
    dict with `rows`, `valid_instructions`, `valid_instructions_interval`, `valid_instructions_rules`, and with answers
    the same three of `valid_responses`.
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS)
class InstructionValidity(evaluate.Measurement):
    def _info(self):
        return evaluate.MeasurementInfo(
            module_type="measurement",
            description=_DESCRIPTION,
            citation="Xu et al., WizardLM, arXiv 2304.12244",
            inputs_description=_KWARGS,
            features=datasets.Features({"data": datasets.Value("string")}),
        )

    def _compute(self, data, instructions, responses=None):
        return validity_measures(list(data), list(instructions), list(responses or ()))
