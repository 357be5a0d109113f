"""Run transformers models in this process; requests that wait at the same time share a batch."""

import asyncio
import hashlib
import importlib.util
import logging
import threading
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jinja2
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from ..errors import UserError
from ..loading import loading, refuse_policy
from ..public import split_adapter
from ..redaction import redact
from ..text.operations import Messages
from ..text.tokens import NO_ANSWER, without_thoughts
from ..types import Finish, Role
from .base import Completion, Request, request_seed
from .decoding import Likelihoods, Prefixes, choice_logprobs, generate_batch

logger = logging.getLogger(__name__)
# For tokenizers without a chat template. The last line break is inside an expression: Jinja drops one that is not.
PLAIN_TEMPLATE = (
    "{% for message in messages %}### {{ message['role'] | capitalize }}:\n{{ message['content'] }}\n\n{% endfor %}"
    "{{ '### Assistant:\n' }}"
)


@dataclass(eq=False)
class _Job:
    """A request that waits: its rendered prompt, how many of its first tokens other prompts are likely to share, and
    how many tokens the model's context leaves for the answer.
    """

    request: Request
    prompt: list[int]
    shared: int
    room: int
    answer: Completion | None = None

    @property
    def kind(self) -> tuple[float, float, tuple[str, ...]]:
        """What requests must have in common to share a batch."""
        return self.request.sampling.temperature, self.request.sampling.top_p, self.request.choices

    @property
    def seed(self) -> int | None:
        """The seed of its answer, from that of the request and the prompt: with one seed for all, answers to different
        prompts would be drawn with the same luck.
        """
        seed = request_seed(self.request)
        digest = hashlib.blake2b(repr((seed, self.prompt)).encode(), digest_size=8).digest()
        return None if seed is None else int.from_bytes(digest, "big") >> 1


class TransformersGenerator:
    """A causal language model of transformers, run in a worker thread so that the event loop stays free.

    While one batch runs, requests collect for the next: up to `batch_size` with equal temperature and top_p, those
    with equal room for the answer first. What prompts say before their last message, such as the worked examples of an
    operation, is computed once and kept. A request with `choices` is answered by the likeliest of them, without
    generating a token.

    Requests are rendered by the tokenizer's chat template, or else by `PLAIN_TEMPLATE` ("### User:", a line break, the
    text); a model that knows neither will often not find an end before `max_tokens`. Control tokens in a message are
    encoded as ordinary text. Sampling follows the request alone: the model's own defaults for top_k, repetition
    penalty and the like are not used.

    Reproducibility: temperature 0 is greedy. Each request with a seed has its own random numbers, so the answer does
    not depend on the other requests of its batch; torch's global random state is neither used nor changed. Rounding
    depends on the shape of the batch, however: where two tokens are almost equally likely (often in bfloat16), the
    answer may differ. For exact repeats, use the same hardware, versions and dtype, and batch_size=1.

    Args:
        model_name_or_path: Model id or folder; "MODEL+ADAPTER" adds a LoRA adapter, by its id or folder. Only
            safetensors or a GGUF file are read, and no code of the model is run.
        batch_size: Most requests per batch.
        dtype: As in `from_pretrained`; "auto" is the dtype of the weights, and for a GGUF file bfloat16 where the
            device computes in it, else float32.
        quantize_4bit: Load in 4 bit (NF4); needs bitsandbytes.
        gguf_file: Name of the GGUF file to read in that folder or repository, in place of safetensors; needs gguf.
        device: Such as "cuda:1"; by default the GPU if there is one, and for a given `model` where it already is.
        model: A loaded model to use under that name; it is put into evaluation mode.
        processing_class: Its tokenizer; loaded from `model_name_or_path` by default.

    Raises:
        UserError: batch_size is below 1, torch has no such dtype or device, bitsandbytes is missing, `quantize_4bit`
            comes with a loaded model, there is no such model, or it has no safetensors.
    """

    def __init__(
        self,
        model_name_or_path: str,
        *,
        batch_size: int = 8,
        dtype: str | torch.dtype = "auto",
        quantize_4bit: bool = False,
        gguf_file: str | None = None,
        device: str | torch.device | None = None,
        model=None,
        processing_class=None,
    ):
        if batch_size < 1:
            raise UserError(f"batch_size must be at least 1, not {batch_size}.")
        if quantize_4bit and model is not None:
            raise UserError(
                "quantize_4bit acts while a model is loaded, but one was given; quantize that, or give none."
            )
        check_device(dtype, device)
        if gguf_file:
            check_gguf(quantize_4bit)
        self.model = f"{model_name_or_path}/{gguf_file}" if gguf_file else model_name_or_path
        self.batch_size = batch_size
        name, adapter = split_adapter(model_name_or_path)
        if model is None:
            refuse_policy(name, gguf_file=gguf_file)
        if processing_class is None:
            with loading("tokenizer", name):
                processing_class = AutoTokenizer.from_pretrained(name, gguf_file=gguf_file, trust_remote_code=False)
        self._tokenizer = processing_class
        if model is None:
            with loading("model", name):
                load = (
                    partial(load_gguf, gguf_file=gguf_file)
                    if gguf_file
                    else partial(_load, quantize_4bit=quantize_4bit)
                )
                model = load(name, dtype=dtype, device=device)
            if adapter is not None:
                model = _with_adapter(model, adapter, merge=not quantize_4bit)
        elif device is not None:
            model.to(device)
        self._model = model.eval()
        self._template = None if self._tokenizer.chat_template else _plain_template(self._tokenizer)
        if self._template is not None:
            logger.info("%s has no chat template; messages are written under '### User:' instead.", self.model)
        self._context = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        self._known = self._model.get_input_embeddings().num_embeddings
        self._ends = _end_tokens(self._model, self._tokenizer)
        self._prefixes = Prefixes(self._model)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn, self._waiting = asyncio.Lock(), list[_Job]()
        self._busy = threading.Lock()
        self._try_out()

    def _try_out(self) -> None:
        """Raise UserError if the template refuses a plain question, or the model cannot read its tokens."""
        job = self._render(Request(Role.EXPERT, ({"role": "user", "content": "Why is the sky blue?"},)))
        if isinstance(job, Completion):
            raise UserError(f"The model {self.model!r} can't be asked anything: {job.error}.")

    @property
    def loaded(self) -> tuple[Any, Any]:
        """The model and its tokenizer."""
        return self._model, self._tokenizer

    def rendered(self, request: Request) -> str:
        """The prompt as the model reads it. See `base.rendered_by`."""
        job = self._render(request)
        return redact(job.error or "" if isinstance(job, Completion) else self._tokenizer.decode(job.prompt))

    async def __call__(self, request: Request) -> Completion:
        job = self._render(request)
        if isinstance(job, Completion):
            return job
        turn, waiting = self._queue()
        waiting.append(job)
        try:
            await asyncio.sleep(0)  # Requests made at the same moment join the batch.
            async with turn:
                if job.answer is None:  # Otherwise an earlier batch answered it.
                    others = [other for other in waiting if other is not job and other.answer is None]
                    like = [other for other in others if other.kind == job.kind]
                    like.sort(key=lambda other: abs(other.room - job.room))  # Stable: otherwise in order of arrival.
                    await self._answer([job, *like][: self.batch_size])
        finally:
            waiting.remove(job)
        assert job.answer is not None
        return job.answer

    def _queue(self) -> tuple[asyncio.Lock, list[_Job]]:
        """Lock and waiting jobs of the running loop; a lock works in one loop only."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._turn, self._waiting = loop, asyncio.Lock(), []
        return self._turn, self._waiting

    def _render(self, request: Request) -> _Job | Completion:
        try:
            prompt = self._tokens(request.messages, add_generation_prompt=True)
            shared = self._shared(request.messages, prompt)
        except (jinja2.TemplateError, ValueError, TypeError, KeyError) as error:
            reason = " ".join(f"the chat template refused the messages: {error}".split())
            return Completion("", self.model, error=reason, request_refused=True)
        if max(prompt, default=0) >= self._known:
            reason = f"the tokenizer writes token {max(prompt)}, but the model has embeddings for {self._known} only"
            return Completion("", self.model, len(prompt), error=reason)
        room = request.sampling.max_tokens
        if self._context is not None:
            room = min(room, self._context - len(prompt))
        if room < 1:
            reason = f"the prompt of {len(prompt)} tokens leaves no room in the context of {self._context}"
            return Completion("", self.model, len(prompt), error=reason, request_refused=True)
        return _Job(request, prompt, shared, room)

    def _tokens(self, messages: Messages, add_generation_prompt: bool) -> list[int]:
        return self._tokenizer.apply_chat_template(
            list(messages),
            chat_template=self._template,
            add_generation_prompt=add_generation_prompt,
            return_dict=False,
            sanitize_control_tokens=True,
        )

    def _shared(self, messages: Messages, prompt: list[int]) -> int:
        """How many tokens of the prompt say what comes before the last message."""
        if len(messages) < 2:
            return 0
        before = self._tokens(messages[:-1], add_generation_prompt=False)
        # A template may write the last message otherwise than the ones before; what is equal is shared in any case.
        return next((n for n, (one, two) in enumerate(zip(before, prompt)) if one != two), len(before))

    async def _answer(self, jobs: list[_Job]) -> None:
        work = self._choose if jobs[0].request.choices else self._generate
        try:
            answers = await asyncio.to_thread(work, jobs)
        except torch.OutOfMemoryError:
            for job in jobs:
                reason = f"out of memory in a batch of {len(jobs)}; lower batch_size or max_tokens"
                job.answer = Completion("", self.model, len(job.prompt), error=reason)
            return
        for job, answer in zip(jobs, answers, strict=True):
            job.answer = answer

    def _generate(self, jobs: list[_Job]) -> list[Completion]:
        """Runs in a worker thread, one at a time."""
        sampling = jobs[0].request.sampling
        with self._busy:  # A cancelled batch continues in its thread; the next one must wait for it.
            answers = generate_batch(
                self._model,
                [job.prompt for job in jobs],
                max_new_tokens=[job.room for job in jobs],
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seeds=[job.seed for job in jobs],
                end_tokens=self._ends,
                shared=[job.shared for job in jobs],
                prefixes=self._prefixes,
                likelihoods=(noted := Likelihoods() if any(job.request.scored for job in jobs) else None),
            )
        made = [self._completion(job, tokens) for job, tokens in zip(jobs, answers, strict=True)]
        means = noted.means([one.completion_tokens for one in made]) if noted else [0.0] * len(jobs)
        return [replace(it, scores=(mean,)) if job.request.scored else it for job, it, mean in zip(jobs, made, means)]

    def _choose(self, jobs: list[_Job]) -> list[Completion]:
        """The likeliest choice of each job. Runs in a worker thread, one at a time."""
        choices = jobs[0].request.choices
        tokens = [self._tokenizer(choice, add_special_tokens=False)["input_ids"] for choice in choices]
        with self._busy:
            rows = choice_logprobs(
                self._model,
                [job.prompt for job in jobs],
                tokens,
                shared=[job.shared for job in jobs],
                prefixes=self._prefixes,
            )
        best = [max(range(len(row)), key=row.__getitem__) for row in rows]
        return [
            Completion(choices[n], self.model, len(job.prompt), scores=tuple(row))
            for job, n, row in zip(jobs, best, rows, strict=True)
        ]

    def _completion(self, job: _Job, tokens: list[int]) -> Completion:
        end = next((place for place, token in enumerate(tokens) if token in self._ends), None)
        text, error = self._said(tokens[:end])
        return Completion(
            text=text,
            model=self.model,
            prompt_tokens=len(job.prompt),
            completion_tokens=len(tokens) if end is None else end + 1,
            finish_reason=Finish.LENGTH if end is None else Finish.STOP,
            error=error,
            request_refused=error is not None,
        )

    def _said(self, tokens: list[int]) -> tuple[str, str | None]:
        """The decoded answer, and the error if it is empty."""
        whole = self._tokenizer.decode(tokens)
        answer, missing = without_thoughts(whole), NO_ANSWER
        if answer == whole:
            answer, missing = self._tokenizer.decode(tokens, skip_special_tokens=True), "empty answer"
        else:  # Special tokens may separate thoughts from the answer, so they are removed only now.
            for token in self._tokenizer.all_special_tokens:
                answer = answer.replace(token, "")
        return (answer, None) if answer.strip() else ("", missing)


def check_device(dtype: str | torch.dtype, device: str | torch.device | None) -> None:
    """Raise UserError for a dtype or device that torch does not have here."""
    if isinstance(dtype, str) and dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise UserError(f"dtype must be 'auto' or one of torch's, such as 'bfloat16', not {dtype!r}.")
    try:
        wanted = torch.device("cpu" if device is None else device)
    except RuntimeError as error:
        raise UserError(f"device must be like 'cpu' or 'cuda:1', not {device!r}.") from error
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"There is no device {str(wanted)!r}: torch sees {torch.cuda.device_count()} CUDA devices here."
        )
    there = torch.accelerator.current_accelerator(check_available=True)
    if wanted.type != "cpu" and (there is None or there.type != wanted.type):
        raise UserError(f"There is no device {str(wanted)!r}: torch sees {there.type if there else 'the CPU'} only.")


def check_gguf(quantize_4bit: bool = False) -> None:
    """Raise UserError where a GGUF file can't be read, or is to be quantized once more."""
    if quantize_4bit or importlib.util.find_spec("gguf") is None:
        raise UserError("gguf_file needs gguf (pip install gguf), and goes without quantize_4bit.")


def _chosen(device: str | torch.device | None) -> torch.device:
    """The given device; by default the GPU if there is one."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device is None else device)


def _load(name: str, dtype: str | torch.dtype, quantize_4bit: bool, device: str | torch.device | None):
    device = _chosen(device)
    if not quantize_4bit:
        whole: Any = AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, use_safetensors=True, trust_remote_code=False
        )
        return whole.to(device)
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError("quantize_4bit needs bitsandbytes; install it with: pip install 'teamsrl-hf[quantization]'.")
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(
        name,
        dtype=dtype,
        quantization_config=four_bit,
        device_map={"": device},
        use_safetensors=True,
        trust_remote_code=False,
    )
    _keep_odd_rows_unpacked(model)
    return model


def load_gguf(name: str, gguf_file: str, dtype: str | torch.dtype, device: str | torch.device | None):
    """The model of a GGUF file with unpacked weights: packed ones ran at two thirds of the speed."""
    device = _chosen(device)
    if dtype == "auto":
        dtype = torch.bfloat16 if _computes_in_bfloat16(device) else torch.float32
    model: Any = AutoModelForCausalLM.from_pretrained(name, gguf_file=gguf_file, dtype=dtype, trust_remote_code=False)
    return model.to(device)


def _with_adapter(model: Any, adapter: str, merge: bool) -> Any:
    """The model with an adapter: merged into its weights, which is faster, unless they are quantized."""
    from peft import PeftModel

    with loading("adapter", adapter):
        adapted: Any = PeftModel.from_pretrained(model, adapter, use_safetensors=True)
        return adapted.merge_and_unload() if merge else adapted


def _computes_in_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _keep_odd_rows_unpacked(model) -> None:
    """Avoid a failure of bitsandbytes, which on CPUs with AVX512-BF16 repacks weights on first use, at odd rows."""
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            odd = module.in_features % module.weight.quant_state.blocksize
            module.support_avx512bf16_for_cpu = not odd


def _plain_template(tokenizer) -> str:
    """`PLAIN_TEMPLATE`, opened by the start token if the tokenizer opens texts with it."""
    opens = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    return "{{ bos_token }}" * opens + PLAIN_TEMPLATE


def _end_tokens(model, tokenizer) -> list[int]:
    """Ids that end an answer: a chat model lists several, a base model may leave them to its tokenizer."""
    ends = model.generation_config.eos_token_id
    ends = tokenizer.eos_token_id if ends is None else ends
    return ends if isinstance(ends, list) else [] if ends is None else [ends]
