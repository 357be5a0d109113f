"""The harvest of a batch: in go its results and the lines it was made of, out comes what is to be done with each.

Results are matched by id, never by their order. A line that was not run, or for which there was no credit, goes back
to what is to be asked; so does one that failed for the moment, as often as a single call would be repeated.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from ...errors import CallsRefused
from ...types import Tier
from ..base import Completion
from ..pacing import suspicious
from ..wire.failure import Failure
from .course import Harvest
from .job import Result, State
from .table import Place

logger = logging.getLogger(__name__)
Made = Completion | Failure | None
_NO_LINE = Failure("the batch has ended without a line for this request", uncounted=True)


@dataclass(frozen=True)
class Sorted:
    """What becomes of the lines of a shard.

    Attributes:
        answers: Answers and final failures, by key.
        besides: What was paid for, but is no answer to be used: retried failures, and answers of a second batch.
        again: Keys that are to be asked again.
        stop: Why the run has to stop, if it has to.
    """

    answers: dict[bytes, Completion]
    besides: list[tuple[bytes, Completion]]
    again: list[bytes]
    stop: CallsRefused | None = None


@dataclass
class _Sorting:
    model: str
    places: Mapping[bytes, Place]
    attempts: Mapping[bytes, int]
    most_attempts: int
    answers: dict[bytes, Completion] = field(default_factory=dict)
    besides: list[tuple[bytes, Completion]] = field(default_factory=list)
    again: list[bytes] = field(default_factory=list)


def sort_out(
    harvest: Harvest,
    places: Mapping[bytes, Place],
    read: Callable[[bytes, Result], Made],
    model: str,
    attempts: Mapping[bytes, int],
    most_attempts: int,
) -> Sorted:
    """Decide on each line of a shard.

    Args:
        read: What a result says, by key.
        attempts: How often a request has been sent by this run; those that nobody waits for are missing.
        most_attempts: How often it may be sent.
    """
    found, twice = _by_key(harvest.results, places, read), list[tuple[bytes, Completion]]()
    for key, made in _by_key(harvest.besides, places, read).items():
        if isinstance(found.get(key), Completion) and isinstance(made, Completion):
            twice.append((key, replace(_counted(made, places[key]), tier=Tier.BATCH)))
        elif made is not None and not isinstance(found.get(key), Completion):
            found[key] = made
    complete = harvest.job.state in (State.COMPLETED, State.FAILED)
    sorting = _Sorting(model, places, attempts, most_attempts, besides=twice)
    broke: Failure | None = None
    for key in places:
        made = found.get(key, _NO_LINE if complete else None)
        if isinstance(made, Failure) and made.status == 402:
            broke = made
            sorting.again.append(key)
        else:
            _decide(sorting, key, made)
    stop = _why_stop(harvest, broke, sorting.answers)
    return Sorted(sorting.answers, sorting.besides, sorting.again, stop)


def _by_key(
    results: Iterable[Result], places: Mapping[bytes, Place], read: Callable[[bytes, Result], Made]
) -> dict[bytes, Made]:
    """The best result of each key; of equal ones the first."""
    names = {key.hex(): key for key in places}
    found: dict[bytes, Made] = {}
    strange = 0
    for result in results:
        if (key := names.get(result.id)) is None:
            strange += 1
            continue
        made = read(key, result)
        if key not in found or _rank(made) > _rank(found[key]):
            found[key] = made
    if strange:
        logger.warning("%d results of a batch have ids that were not sent; they are left out.", strange)
    return found


def _rank(made: Made) -> int:
    return 2 if isinstance(made, Completion) else 1 if made is not None else 0


def _decide(sorting: _Sorting, key: bytes, made: Made) -> None:
    """Note an answer, a failure, or that the request is to be asked again."""
    place, attempts = sorting.places[key], sorting.attempts.get(key)
    if isinstance(made, Completion):
        sorting.answers[key] = replace(_counted(made, place), tier=Tier.BATCH, attempts=attempts or 1)
        return
    may_repeat = attempts is None or attempts < sorting.most_attempts
    if made is None and may_repeat:
        sorting.again.append(key)
        return
    failure = made or Failure(f"not run in {attempts} batches")
    charged = _charged(failure, place, sorting.model)
    limited = failure.retries is not None and (attempts or 1) > failure.retries
    if failure.parameter is not None or (failure.retry and may_repeat and not limited):
        sorting.again.append(key)
        if charged.prompt_tokens + charged.completion_tokens:
            sorting.besides.append((key, charged))
    else:
        sorting.answers[key] = replace(charged, attempts=attempts or 1)


def _charged(failure: Failure, place: Place, model: str) -> Completion:
    """A failure as a call; one without a count is booked at the most that it may have cost."""
    counted = failure.prompt_tokens, failure.completion_tokens
    most = (place.prompt, place.answer) if failure.uncounted else (0, 0)
    tokens = most if failure.uncounted else counted
    return Completion(
        "",
        model,
        *tokens,
        error=failure.reason,
        request_refused=failure.about_request,
        cached_tokens=failure.cached_tokens,
        estimated_tokens=most,
        tier=Tier.BATCH,
    )


def _counted(answer: Completion, place: Place) -> Completion:
    """The answer, with an estimate of its tokens where the provider does not count."""
    if answer.prompt_tokens or answer.completion_tokens or not answer.text:
        return answer
    tokens = place.prompt // 4 + 1, len(answer.text.encode("utf-8", "replace")) // 4 + 1
    return replace(answer, prompt_tokens=tokens[0], completion_tokens=tokens[1], estimated_tokens=tokens)


def lost(places: Mapping[bytes, Place], model: str, why: str) -> list[tuple[bytes, Completion]]:
    """What to book for a shard whose results are given up: the most that they may have cost."""
    failure = Failure(why, uncounted=True)
    return [(key, _charged(failure, place, model)) for key, place in places.items()]


def _why_stop(harvest: Harvest, broke: Failure | None, answers: Mapping[bytes, Completion]) -> CallsRefused | None:
    job, kept = harvest.job, sum(answer.error is None for answer in answers.values())
    if broke is not None:
        return CallsRefused(
            f"The batch {job.id} gave {kept:,} answers, which are recorded; then there was no credit: {broke.reason}. "
            "Correct this and run the same command again."
        )
    if job.state is State.CANCELLED:
        return CallsRefused(
            f"The batch {job.id} was cancelled; its {kept:,} answers are recorded. Run the same command again to ask "
            "for the rest."
        )
    failed = [answer for answer in answers.values() if answer.error is not None]
    if not kept and failed and len(failed) >= (suspicious(1) if failed[-1].request_refused else 2):
        return CallsRefused(
            f"All {len(failed):,} requests of the batch {job.id} failed, the last with: {failed[-1].error}. Correct "
            "this and run the same command again."
        )
    return None
