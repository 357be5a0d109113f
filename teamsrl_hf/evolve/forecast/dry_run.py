"""A dry run: in goes what a run would write, out come one question to each model, its answer and a forecast.

Nothing is written but the ledger, so that the run that follows buys none of these answers again.
"""

import json
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from ...calls import run_async
from ...errors import CallsRefused, UserError
from ...models.base import Completion, rendered_by
from ...models.ledger import Ledger
from ...redaction import redact, shown, visible
from ...runs import hold, peek_run, prepare_run
from ..concurrency import together
from ..evolution import Evolution
from ..shards import Team
from ..write import Writing, is_whole
from .bounds import bounds
from .intervals import Forecast
from .pilot import forecast_from, run_pilot
from .requests import Sample, samples
from .table import forecast_table, pilot_lines

Say = Callable[[str], object]


@dataclass(frozen=True)
class Answered:
    """A question to a model with its answer, and how many seconds it took."""

    sample: Sample
    completion: Completion
    seconds: float


def dry_run(writing: Writing, pilot: int = 0, asking: Evolution | None = None, say: Say = print) -> Forecast | None:
    """Show a request of each role, ask it, and forecast what the run takes and gives.

    Args:
        writing: The run.
        pilot: Seeds to evolve for the forecast; with 0, it states bounds.
        asking: The evolver with models that give up soon, for the questions; by default that of the run.
        say: Where the report goes, text by text.

    Returns:
        The forecast; None if the folder holds the finished run.

    Raises:
        UserError: The folder holds something else, or a run with other settings; or there are several processes.
        CallsRefused: A model did not answer; the message repeats what its server said.
        BudgetExhausted: The budget does not cover the questions and the pilot.
    """
    if Team.join().size > 1:
        raise UserError("A dry run takes one process; run it without `accelerate launch`.")
    writing.card.check(writing.record.origin, writing.evolver)
    with hold(writing.folder):
        done = peek_run(writing.folder, {**writing.record.arguments, **writing.card.arguments})
        if done is not None and is_whole(done):
            say(f"{writing.folder} is already complete: its run takes no further call.")
            return None
        prepare_run(writing.folder)
        with writing.payment.open(time.time()) as ledger:
            _ask_all(samples(asking or writing.evolver, writing.seeds), ledger, say)
            return _forecast(writing, pilot, ledger, say)


def _ask_all(questions: Sequence[Sample], ledger: Ledger, say: Say) -> None:
    """Ask one question of each role, at the same time. CallsRefused if any is left without an answer."""
    for sample in questions:
        say(f"{_who(sample)}{', the first request of the run' if sample.first else ''}:\n{_shown(sample)}\n")
    answers = run_async(together([_ask(sample, ledger) for sample in questions]))
    for answer in answers:
        say(_told(answer))
    failed = [
        f"{_who(answer.sample)}: {shown(answer.completion.error)}" for answer in answers if answer.completion.error
    ]
    if failed:
        raise CallsRefused(
            f"No answer came from {'; '.join(failed)}. Correct this and run the same command again; what was answered "
            "is recorded."
        )


async def _ask(sample: Sample, ledger: Ledger) -> Answered:
    started = time.monotonic()
    completion = await ledger.record(sample.generator)(sample.request)
    return Answered(sample, completion, time.monotonic() - started)


def _who(sample: Sample) -> str:
    return f"{sample.role} {shown(sample.generator.model)}"


def _shown(sample: Sample) -> str:
    """The request on the wire or as the model reads it; of a model that reads the task, the messages."""
    text = rendered_by(sample.generator, sample.request)
    if text is None:
        request = {"messages": sample.request.messages, **asdict(sample.request.sampling)}
        text = redact(json.dumps(request, indent=2, ensure_ascii=False))
    return visible(text)


def _told(answer: Answered) -> str:
    completion = answer.completion
    if completion.error:
        return f"{_who(answer.sample)} did not answer: {shown(completion.error)}"
    tokens = f"{completion.prompt_tokens:,} prompt tokens and {completion.completion_tokens:,} answer tokens"
    text = textwrap.shorten(shown(completion.text), 200, placeholder=" …")
    return f"{_who(answer.sample)} answered within {answer.seconds:.1f} s, {tokens}: {text}"


def _forecast(writing: Writing, size: int, ledger: Ledger, say: Say) -> Forecast:
    evolver, seeds = writing.evolver, writing.seeds
    if size:
        pilot = run_pilot(evolver, seeds, size, ledger, writing.show_progress)
        found = forecast_from(pilot, evolver, seeds)
        say("\n" + pilot_lines(pilot, found))
    else:
        found = bounds(evolver, seeds, ledger.prices)
    say("\n" + forecast_table(found, evolver.args.method, priced=bool(ledger.prices)))
    money = f" and {ledger.cost:.6g} in the currency of the prices" if ledger.prices else ""
    say(
        f"\nBought so far: {ledger.calls:,} calls, {ledger.tokens:,} tokens{money}, recorded in {ledger.path}.\n"
        f"The same command without {'--pilot' if size else '--dry_run'} starts the run and buys none of these again."
    )
    return found
