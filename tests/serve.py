"""A server this project did not write: `transformers serve` with a tiny model of random weights, on 127.0.0.1.

    with served_model(folder) as (name, url):
        generator = EndpointGenerator(name, url)

Its answers are noise; what it shows is how a real server behaves. It needs the extra `serving`.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

WORDS = (
    "Write a plan for the day and give reasons for each part of it, then answer in one or two short sentences. "
    "Instruction rewrite verdict Equal Different step number list name river city sea north sort these words why how. "
)
CHAT = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}<|assistant|>"


def save_tiny_model(folder: Path, context: int = 4096) -> None:
    """A Llama of random weights, some 100,000 parameters, with a chat template and a tokenizer trained on `WORDS`."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([WORDS] * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", extra_special_tokens=special[2:]
    )
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=0.6,  # Wide, so that answers depend on the prompt.
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    model = LlamaForCausalLM(config)
    model.generation_config.do_sample = True  # Else the server is greedy whatever temperature is asked for.
    model.save_pretrained(folder)


@contextlib.contextmanager
def served_model(folder: Path, patience: float = 120.0) -> Iterator[tuple[str, str]]:
    """`transformers serve` with a tiny model saved into `folder`: the name to ask for, and the base URL.

    Raises:
        RuntimeError: The server ended, or was not ready after `patience` seconds; with the end of what it printed.
    """
    name = str(folder / "model")
    save_tiny_model(Path(name))
    port = _free_port()
    home = folder / "home"
    (home / "hub").mkdir(parents=True)
    environment = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = Path(sys.executable).with_name("transformers")
    arguments = ["serve", name, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    with (
        (folder / "serve.log").open("w") as log,
        subprocess.Popen([command, *arguments], stdout=log, stderr=subprocess.STDOUT, env=environment) as process,
    ):
        try:
            _wait_until_ready(process, f"http://127.0.0.1:{port}/health", patience, folder / "serve.log")
            yield name, f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_ready(process: subprocess.Popen, url: str, patience: float, log: Path) -> None:
    end = time.monotonic() + patience
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.25)
    raise RuntimeError(f"transformers serve did not become ready: {log.read_text()[-2000:]}")
