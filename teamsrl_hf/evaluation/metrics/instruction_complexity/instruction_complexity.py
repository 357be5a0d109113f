"""Complexity of instructions, as a measurement of the `evaluate` library."""

import datasets
import evaluate

from teamsrl_hf.evaluation.measures import complexity_measures

_DESCRIPTION = """How hard instructions are to read: words, words per sentence, Flesch-Kincaid grade (English),
and the lexical diversity MTLD of the whole set. Each comes with a 95 % interval. `words` is
length and not difficulty; the others do not grow when a text is repeated. None says how hard
a task is to solve."""
_KWARGS = """
Args:
    data: list of instructions.
    seed: of the resampling.

Returns:
    dict with `rows`, the four measures, and `<measure>_interval`, a pair of numbers (None for MTLD below 20 texts).
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS)
class InstructionComplexity(evaluate.Measurement):
    def _info(self):
        return evaluate.MeasurementInfo(
            module_type="measurement",
            description=_DESCRIPTION,
            citation="McCarthy and Jarvis 2010; Kincaid et al. 1975",
            inputs_description=_KWARGS,
            features=datasets.Features({"data": datasets.Value("string")}),
        )

    def _compute(self, data, seed=0):
        return complexity_measures(list(data), seed)
