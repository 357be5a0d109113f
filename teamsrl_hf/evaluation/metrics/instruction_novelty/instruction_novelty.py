"""Novelty of instructions to the seeds they came from, as a measurement of the `evaluate` library."""

import datasets
import evaluate

from teamsrl_hf.evaluation.embeddings import HASHED_WORDS, embedder
from teamsrl_hf.evaluation.measures import novelty_measures

_DESCRIPTION = """How far instructions are from the nearest seed: mean of 1 - cosine of embeddings, with a 95 %
bootstrap interval, and the share of copies, with a Wilson interval. With the default
embedding a paraphrase counts as new."""
_KWARGS = """
Args:
    data: list of instructions.
    seeds: list of seed instructions, of any length.
    embedding: "hashed_words" (default; needs no model) or the name of a sentence-transformers model.
    seed: of the resampling.

Returns:
    dict with `rows`, `novelty`, `novelty_interval`, `copies`, `copies_interval`.
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS)
class InstructionNovelty(evaluate.Measurement):
    def _info(self):
        return evaluate.MeasurementInfo(
            module_type="measurement",
            description=_DESCRIPTION,
            citation="Gu et al., TeaMs-RL, arXiv 2403.08694",
            inputs_description=_KWARGS,
            features=datasets.Features({"data": datasets.Value("string")}),
        )

    def _compute(self, data, seeds, embedding=HASHED_WORDS, seed=0):
        return novelty_measures(list(data), list(seeds), embedder(embedding), seed)
