"""Diversity of a set of instructions, as a measurement of the `evaluate` library."""

import datasets
import evaluate

from teamsrl_hf.evaluation.embeddings import HASHED_WORDS, embedder
from teamsrl_hf.evaluation.measures import diversity_measures

_DESCRIPTION = """How different the instructions of a set are from one another: Vendi score and mean pairwise
distance of embeddings, distinct-1 and distinct-2, compression ratio, self-repetition of
4-grams. Each comes with a 95 % interval from random halves of the set (none below 20 texts).
All of them depend on the number of texts: compare sets of equal size."""
_KWARGS = """
Args:
    data: list of instructions, at least two.
    embedding: "hashed_words" (default; needs no model) or the name of a sentence-transformers model.
    seed: of the random halves.

Returns:
    dict with `rows`, the six measures, and `<measure>_interval`, a pair of numbers or None.
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS)
class InstructionDiversity(evaluate.Measurement):
    def _info(self):
        return evaluate.MeasurementInfo(
            module_type="measurement",
            description=_DESCRIPTION,
            citation="Friedman and Dieng, The Vendi Score, arXiv 2210.02410",
            inputs_description=_KWARGS,
            features=datasets.Features({"data": datasets.Value("string")}),
        )

    def _compute(self, data, embedding=HASHED_WORDS, seed=0):
        return diversity_measures(list(data), embedder(embedding), seed)
