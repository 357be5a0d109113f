"""Batches through one causal language model: in go prompts as token ids, out come answers, or how likely choices are.

Prompts that begin alike, as few-shot prompts of one operation do, share the computed states of their beginning
(`Prefixes`). Measured on two CPU cores with SmolLM2-135M in bfloat16, prompts of 315 tokens of which 275 are shared,
40 new tokens, batches of 16: 122 new tokens a CPU-second with shared states, 71 without. transformers' own
continuous batching (`model.generate_batch`) is for GPUs: on the same prompts it gave 7 new tokens a CPU-second.
"""

import logging
from collections import OrderedDict
from inspect import signature
from typing import cast

import torch
from transformers import (
    DynamicCache,
    GenerationConfig,
    GenerationMixin,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)
from transformers.cache_utils import DynamicLayer

# Said outright, because generate() fills what is not said from the model's own generation_config.
_NEUTRAL = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 50,  # transformers' default; without do_sample it has no effect.
    "num_beams": 1,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
}
# transformers 5 is renaming the argument; the old name warns, and the new one is unknown to its first versions.
_CACHE = (
    "cache" if "cache" in signature(GenerationMixin.prepare_inputs_for_generation).parameters else "past_key_values"
)

# A batch may be longer than the context by its padding, each of its rows is not: `generate` would warn all the same.
logging.getLogger("transformers.generation.stopping_criteria").addFilter(
    lambda record: "predefined maximum length" not in record.getMessage()
)

States = list[tuple[torch.Tensor, torch.Tensor]]  # Keys and values of each layer, [1, heads, tokens, size].


class Prefixes:
    """The states of beginnings that prompts share, each computed once by itself; the least recently used go first.

    Computing a beginning alone keeps answers independent of the batch that met it first. Models whose layers keep
    other states than keys and values of all tokens (sliding windows, state-space layers) share nothing.

    Args:
        most: Tokens of beginnings to keep: 370 MB with a model of 135M, 2 GB with one of 8B. Planned methods use some
            30 beginnings of 300 to 700 tokens; if one of them did not fit, all would be computed again and again.
        least: A shorter beginning is not worth keeping.
    """

    def __init__(self, model, most: int = 16_384, least: int = 32):
        self._model, self._most, self._least = model, most, least
        self._kept: OrderedDict[tuple[int, ...], States] = OrderedDict()
        layers = DynamicCache(config=model.config).layers
        self._able = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)

    def of(self, prompt: list[int], shared: int) -> States | None:
        """The states of the first `shared` tokens of a prompt, or None where they are not worth sharing."""
        return self._states(tuple(prompt[:shared])) if self._able and shared >= self._least else None

    def _states(self, key: tuple[int, ...]) -> States:
        if key not in self._kept:
            cache = DynamicCache(config=self._model.config)
            with torch.inference_mode():
                ids = torch.tensor([key], device=self._model.device)
                self._model(input_ids=ids, logits_to_keep=1, **{_CACHE: cache})
            layers = [layer for layer in cache.layers if isinstance(layer, DynamicLayer)]
            self._kept[key] = [(cast(torch.Tensor, layer.keys), cast(torch.Tensor, layer.values)) for layer in layers]
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and sum(map(len, self._kept)) > self._most:
            self._kept.popitem(last=False)
        return self._kept[key]


class _Batch:
    """B prompts as one tensor: beginnings padded on the left, then the rest of each prompt padded on the left.

    Attributes:
        ids, mask: [B, L].
        cache: The states of the beginnings, or None where no prompt has one to share.
    """

    def __init__(self, model, prompts: list[list[int]], shared: list[int], prefixes: Prefixes | None, padding: int):
        states = [prefixes.of(p, n) if prefixes else None for p, n in zip(prompts, shared, strict=True)]
        lengths = [state[0][0].shape[2] if state else 0 for state in states]
        first = max(lengths)
        rest = max(len(prompt) - length for prompt, length in zip(prompts, lengths, strict=True))
        pairs = list(zip(prompts, lengths, strict=True))
        rows = [_padded(p[:n], first, padding) + _padded(p[n:], rest, padding) for p, n in pairs]
        mask = [_padded([1] * n, first, 0) + _padded([1] * (len(p) - n), rest, 0) for p, n in pairs]
        self.ids = torch.tensor(rows, device=model.device)
        self.mask = torch.tensor(mask, device=model.device)
        self.cache = _joined(states, first) if first else None
        self.first = first


def _padded(tokens: list[int], length: int, padding: int) -> list[int]:
    return [padding] * (length - len(tokens)) + tokens


def _joined(states: list[States | None], length: int) -> DynamicCache:
    """One cache of B rows from the states of each, padded on the left to `length` tokens."""
    some = next(row for row in states if row)

    def stacked(layer: int, which: int) -> torch.Tensor:
        like = some[layer][which]
        out = like.new_zeros(len(states), like.shape[1], length, like.shape[3])
        for row, state in enumerate(states):
            if state:
                tensor = state[layer][which]
                out[row, :, length - tensor.shape[2] :] = tensor[0]
        return out

    return DynamicCache([(stacked(layer, 0), stacked(layer, 1)) for layer in range(len(some))])


def generate_batch(
    model,
    prompts: list[list[int]],
    *,
    max_new_tokens: int | list[int],
    temperature: float = 0.0,
    top_p: float = 1.0,
    seeds: list[int | None] | None = None,
    end_tokens: list[int] | None = None,
    shared: list[int] | None = None,
    prefixes: Prefixes | None = None,
    likelihoods: "Likelihoods | None" = None,
) -> list[list[int]]:
    """The tokens `model` puts after each of B prompts; what follows an end token is padding.

    Args:
        prompts: B lists of token ids of any lengths.
        max_new_tokens: Most tokens of an answer, or of each of the B answers.
        temperature: 0 takes the likeliest token.
        seeds: B seeds, None for a random one.
        shared: How many tokens at the beginning of each prompt other prompts are likely to share.
        prefixes: Where the states of such beginnings are kept; without it nothing is shared.
        likelihoods: Takes down how likely each token is.

    Returns:
        B lists, none longer than its `max_new_tokens`.
    """
    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens
    padding = end_tokens[0] if end_tokens else 0
    batch = _Batch(model, prompts, [0] * len(prompts) if shared is None else shared, prefixes, padding)
    length = batch.ids.shape[1]
    processors = LogitsProcessorList([] if likelihoods is None else [likelihoods])
    if temperature > 0:
        sampler = _Sampler([None] * len(prompts) if seeds is None else seeds, model.device)
        processors += [TemperatureLogitsWarper(float(temperature)), _Nucleus(top_p), sampler]
    config = GenerationConfig(
        max_new_tokens=max(limits),
        do_sample=False,  # `_Sampler` draws; generate() would draw from torch's global state.
        return_dict_in_generate=False,
        **_NEUTRAL,
        eos_token_id=end_tokens or None,
        pad_token_id=padding,
    )
    out = model.generate(
        batch.ids,
        attention_mask=batch.mask,
        generation_config=config,
        logits_processor=processors,
        stopping_criteria=StoppingCriteriaList([_Limits(limits, length)]),
        **({_CACHE: batch.cache} if batch.cache is not None else {}),
    )
    if likelihoods is not None:
        likelihoods.note(out)
    return [row[:limit] for row, limit in zip(out[:, length:].tolist(), limits, strict=True)]


@torch.inference_mode()
def choice_logprobs(
    model,
    prompts: list[list[int]],
    choices: list[list[int]],
    *,
    shared: list[int] | None = None,
    prefixes: Prefixes | None = None,
) -> list[list[float]]:
    """The log-probability of each of C choices after each of B prompts, in nats, [B][C]; no token is generated.

    Args:
        choices: C lists of token ids.
    """
    batch = _Batch(model, prompts, [0] * len(prompts) if shared is None else shared, prefixes, 0)
    cache = batch.cache if batch.cache is not None else DynamicCache(config=model.config)
    positions = (batch.mask.cumsum(-1) - 1).clamp(min=0)
    rest = {"input_ids": batch.ids[:, batch.first :], "position_ids": positions[:, batch.first :]}
    first = model(**rest, attention_mask=batch.mask, logits_to_keep=1, **{_CACHE: cache})
    start = first.logits[:, -1].float().log_softmax(-1)
    totals = start[:, [choice[0] for choice in choices]]
    longest = max(map(len, choices))
    if longest > 1:
        totals = totals + _further(model, batch.mask, positions[:, -1:], cache, choices, longest)
    return totals.tolist()


def _further(model, mask, last, cache, choices: list[list[int]], longest: int) -> torch.Tensor:
    """Log-probabilities of the choices' tokens after their first, [B, C]; `last` [B, 1] is the last token's place."""
    rows, count = len(mask), len(choices)
    cache.batch_repeat_interleave(count)
    said = torch.tensor([choice + [0] * (longest - len(choice)) for choice in choices], device=mask.device)
    there = torch.tensor([[n < len(choice) for n in range(longest)] for choice in choices], device=mask.device)
    said, there = said.repeat(rows, 1), there.repeat(rows, 1)
    steps = torch.arange(1, longest, device=mask.device)
    out = model(
        input_ids=said[:, :-1],
        attention_mask=torch.cat([mask.repeat_interleave(count, 0), there[:, :-1].long()], 1),
        position_ids=last.repeat_interleave(count, 0) + steps,
        **{_CACHE: cache},
    )
    each = out.logits.float().log_softmax(-1).gather(-1, said[:, 1:, None])[..., 0]
    return (each * there[:, 1:]).sum(-1).view(rows, count)


class Likelihoods(LogitsProcessor):
    """Takes down the log-probability of each token of B answers, before temperature and top_p, and changes nothing."""

    def __init__(self) -> None:
        self._scores: torch.Tensor | None = None
        self._steps: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.note(input_ids)
        self._scores = scores
        return scores

    def note(self, ids: torch.Tensor) -> None:
        """Take down the last token of each row [B, L], which the scores seen last have led to."""
        if self._scores is not None:
            scores = self._scores.float()
            self._steps.append(scores.gather(-1, ids[:, -1:])[:, 0] - scores.logsumexp(-1))

    def means(self, lengths: list[int]) -> list[float]:
        """The mean over the first tokens of each answer, in nats, to six digits: [B] from [B] lengths of 1 or more."""
        steps = torch.stack(self._steps, 1).tolist()
        return [round(sum(row[:length]) / length, 6) for row, length in zip(steps, lengths, strict=True)]


class _Limits(StoppingCriteria):
    """Ends each row of a batch when its answer has its own number of tokens."""

    def __init__(self, limits: list[int], start: int):
        self.limits, self.start = torch.tensor(limits), start

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:
        return (input_ids.shape[1] - self.start >= self.limits).to(input_ids.device)


class _Nucleus(LogitsProcessor):
    """Leaves out of scores [B, V] the tokens behind the likeliest ones that together have the probability `top_p`.

    It gives what transformers' TopPLogitsWarper does. That sorts the vocabulary at every step, which took longer than
    SmolLM2-135M itself in batches of 32 on a CPU; here only rows are sorted whose `most` likeliest tokens have less.
    """

    def __init__(self, top_p: float, most: int = 512):
        self.top_p, self.most = top_p, most

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self.top_p >= 1:
            return scores
        best, places = scores.topk(min(self.most, scores.shape[-1]))
        likely = (best.float() - scores.float().logsumexp(-1, keepdim=True)).exp()
        reached = likely.cumsum(-1)
        best = best.masked_fill(reached - likely >= self.top_p, -torch.inf)
        best[:, 0] = scores.amax(-1)  # One is always left, however small `top_p` is.
        kept = torch.full_like(scores, -torch.inf).scatter_(-1, places, best)
        flat = reached[:, -1] < self.top_p
        if self.most < scores.shape[-1] and bool(flat.any()):
            kept[flat] = TopPLogitsWarper(self.top_p)(input_ids, scores[flat])
        return kept


class _Sampler(LogitsProcessor):
    """Turns scores [B, V] into a race that token v of row b wins with its probability, run with the row's own seed."""

    def __init__(self, seeds: list[int | None], device: torch.device):
        self.generators = [torch.Generator(device) for _ in seeds]
        for generator, seed in zip(self.generators, seeds, strict=True):
            generator.seed() if seed is None else generator.manual_seed(seed)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        times = torch.empty_like(scores, dtype=torch.float32)
        for row, generator in zip(times, self.generators, strict=True):
            row.exponential_(generator=generator)
        # Of clocks that ring at rates p, v is the first with probability p[v]. A time of 0 would win at any rate.
        return scores.float().softmax(dim=-1) / times.clamp_min_(1e-20)
