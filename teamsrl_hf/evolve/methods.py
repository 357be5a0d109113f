"""The methods: in go seeds and models, out come candidates, with every call that is made before they are accepted.

They differ in what the expert is paid for: one operation, a plan of them, a plan and its answer, or several of these.

Each call is booked on a candidate: "rewrite" and "answer" are the expert's, "review" the reviewer's (in Evol-Instruct
the expert's, as judge), "walk" the free instructor's. One call for a rewrite and its answer is a "rewrite"; one that
several rows share is booked on the first of them. So calls per accepted row are all calls to the expert, retries and
those for candidates that were rejected included, over the number of rows that were accepted.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..environment.edit_plans import EditedRow, Lost, Step, edit_plan_request, read_edited, steps_for
from ..environment.review import ask_verdict, review
from ..environment.rewriting import ask_rewrite, no_rewrite, pack_request, plan_request
from ..environment.rollout import carry_out, next_state, uniform
from ..models.base import Completion, Generator, Sampling, is_immediate, writes_whole
from ..text.gate.chatter import strip_chatter
from ..text.operations import Operation
from ..text.plans import pack_key, read_rows
from ..text.rules import instruction_violations, response_violations
from ..types import (
    BY_RULES,
    CallKind,
    Candidate,
    Finish,
    Reason,
    Review,
    Role,
    Seed,
    State,
    Transition,
    Verdict,
    Verifier,
)
from .candidates import (
    CHAIN,
    Added,
    Counted,
    Planned,
    answer_problem,
    answer_request,
    answered,
    new_candidate,
    step_of,
)
from .concurrency import together
from .config import EvolverConfig


@dataclass(frozen=True)
class Models:
    """Who does what. `choose` gives the next operation of a chain, or None to end it."""

    choose: Callable[[State, Seed], Operation | None]
    operations: tuple[Operation, ...]
    expert: Generator
    reviewer: Generator
    instructor: Generator | None
    args: EvolverConfig

    @property
    def walker(self) -> Generator:
        """The instructor of a planned method, which can't do without one."""
        assert self.instructor is not None
        return self.instructor


async def walk(group: Sequence[Seed], models: Models) -> list[list[Candidate]]:
    """The candidates of each seed of a group, by the method that `models.args` names."""
    method = models.args.method
    if method == "stepwise":
        return [await stepwise(seed, models) for seed in group]
    if method == "evol_instruct":
        return [await evol_instruct(seed, models) for seed in group]
    at_once = is_immediate(models.walker) and is_immediate(models.reviewer)
    walked = await together([plan_ahead(seed, models) for seed in group], at_once)
    planned = [entry for entries in walked for entry in entries if entry.steps]
    made = await carry_out_plans(planned, models)
    by_seed: dict[int, list[Candidate]] = {}
    owners = [place for place, entries in enumerate(walked) for entry in entries if entry.steps]
    for place, candidates in zip(owners, made, strict=True):
        by_seed.setdefault(place, []).extend(candidates)
    return [by_seed.get(place) or [_nothing_planned(entries[0])] for place, entries in enumerate(walked)]


async def stepwise(seed: Seed, models: Models) -> list[Candidate]:
    """One expert call per operation; a rejected rewrite is left behind. Answers are requested later."""
    CHAIN.set((seed.id,))
    expert, reviewer = Counted(models.expert, models.args.retry_cut), Counted(models.reviewer)
    state, texts, parent_id = State(seed.text), [seed.text], seed.id
    path: tuple[str, ...] = ()
    candidates = []
    for step in range(models.args.operations_per_episode):
        operation = models.choose(state, seed)
        if operation is None:
            break
        how = models.args.sampling, Role.EXPERT, state.verifiers
        transition = await carry_out(texts, operation, expert, reviewer, *how)
        calls = {CallKind.REWRITE: expert.spent(), CallKind.REVIEW: reviewer.spent()}
        candidate = new_candidate(seed, parent_id, step, (*path, operation.name), transition, calls)
        candidates.append(candidate)
        if transition.review.passed:
            texts.append(transition.rewrite)
            parent_id, path = candidate.id, candidate.operations
        state = next_state(state, transition)
    return candidates or [_nothing_planned(Planned(seed, 0, (), {}))]


async def evol_instruct(seed: Seed, models: Models) -> list[Candidate]:
    """Evol-Instruct (arXiv 2304.12244): each round a random operation, a rewrite, a verdict and an answer, all paid.

    A rewrite that one of its four rules eliminates, by the verdict, the rewrite or the answer, is left behind: the
    next round starts from the text before. It is not answered, which saves the baseline calls that the paper made.
    """
    CHAIN.set((seed.id,))
    expert = Counted(models.expert, models.args.retry_cut)
    texts, parent_id = [seed.text], seed.id
    path: tuple[str, ...] = ()
    carried: tuple[Verifier, ...] = ()
    candidates: list[Candidate] = []
    for step in range(models.args.operations_per_episode):
        operation = drawn_operation(seed, step, models.operations, models.args)
        # A round that draws the same operation again asks for another try at it.
        tried = sum(
            old.transition.operation == operation.name and old.transition.instruction == texts[-1]
            for old in candidates
        )
        transition, calls = await _evolve_once(texts, operation, expert, models.args, tried, carried)
        candidate = new_candidate(seed, parent_id, step, (*path, operation.name), transition, calls)
        if transition.review.passed:
            completion = await expert(answer_request(candidate, models.args))
            candidate = answered(candidate, completion, expert.spent())
            candidate = _eliminated(candidate, answer_problem(completion, transition.rewrite))
        candidates.append(candidate)
        if candidate.transition.review.passed:
            texts.append(transition.rewrite)
            parent_id, path, carried = candidate.id, candidate.operations, transition.verifiers
    return candidates


def drawn_operation(seed: Seed, step: int, operations: Sequence[Operation], args: EvolverConfig) -> Operation:
    """The operation of a round of Evol-Instruct."""
    return operations[int(uniform("evol_instruct", args.seed, seed.id, step) * len(operations))]


async def _evolve_once(
    texts: Sequence[str],
    operation: Operation,
    expert: Counted,
    args: EvolverConfig,
    sample_index: int,
    carried: Sequence[Verifier],
) -> tuple[Transition, dict[CallKind, int]]:
    """One rewrite by the expert, and its own verdict on it, asked for whenever there is a text to judge."""
    text = texts[-1]
    made = await ask_rewrite(operation, text, expert, Role.EXPERT, args.sampling, sample_index, carried)
    calls = {CallKind.REWRITE: expert.spent()}
    if isinstance(made, Transition):
        return made, calls
    if not made.text:
        empty = Review(Verdict.NOT_EQUAL, (Reason.EMPTY,))
        return Transition(text, operation.name, "", empty, made.model), calls
    verdict = await ask_verdict(text, made.text, expert, role=Role.JUDGE)
    violations = instruction_violations(text, made.text, texts[:-1], operation)
    verdict = replace(verdict, violations=(*violations, *verdict.violations))
    transition = Transition(text, operation.name, made.text, verdict, made.model, None, made.edit, made.verifiers)
    return transition, {**calls, CallKind.REVIEW: expert.spent()}


async def plan_ahead(seed: Seed, models: Models) -> list[Planned]:
    """Walk a chain with the free instructor and note which operations gained something; at least one entry.

    An entry without a plan stands for a seed on which no operation did, or of which the chooser expected nothing.
    """
    CHAIN.set((seed.id,))
    args = models.args
    state, texts = State(seed.text), [seed.text]
    steps: tuple[Operation | Added, ...] = ()
    instructor, reviewer = Counted(models.walker), Counted(models.reviewer)
    entries: list[Planned] = []
    calls: Counter[CallKind] = Counter()
    for step in range(args.operations_per_episode):
        operation = models.choose(state, seed)
        if operation is None:
            break
        way = in_plan(operation), instructor, reviewer, args.sampling
        transition = await carry_out(texts, *way, carried=state.verifiers)
        calls.update({CallKind.WALK: instructor.spent(), CallKind.REVIEW: reviewer.spent()})
        state = next_state(state, transition)
        if transition.review.passed:
            texts.append(transition.rewrite)
            steps = (*steps, step_of(operation, transition))
            if args.plan_length and len(steps) % args.plan_length == 0:
                entries.append(Planned(seed, step, steps, calls, state.verifiers))
                calls = Counter()
    if not entries or len(steps) > len(entries[-1].steps):
        return [*entries, Planned(seed, max(state.step - 1, 0), steps, calls, state.verifiers)]
    return [*entries[:-1], replace(entries[-1], calls=Counter(entries[-1].calls) + calls)]


def in_plan(operation: Operation) -> Operation:
    """An operation as it is walked ahead: nobody pays for the wording of a constraint twice, so it is one of ours."""
    return replace(operation, proof=operation.proof and replace(operation.proof, by_model=False))


async def carry_out_plans(planned: Sequence[Planned], models: Models) -> list[list[Candidate]]:
    """The candidate of each plan, and one for each of its operations that was lost on the way.

    One expert call per plan, whose answers are requested later, or one per `pack_size` plans for the finished
    instructions and their answers. Plans whose operations have edits are asked for these, apart from the others.
    """
    edited = [bool(_steps(entry, models)) if entry.plan else None for entry in planned]
    ways = {True: _carry_out_pack, False: _carry_out_plan if models.args.method == "plan" else _carry_out_pack}
    made = {place: [_all_added(entry)] for place, entry in enumerate(planned) if not entry.plan}
    size = models.args.pack_size
    for way in (True, False):
        places = [place for place, by_edits in enumerate(edited) if by_edits == way]
        packs = [places[start : start + size] for start in range(0, len(places), size)]
        asking = [ways[way]([planned[place] for place in pack], models) for pack in packs]
        at_once = is_immediate(models.expert) and is_immediate(models.reviewer)
        for pack, rows in zip(packs, await together(asking, at_once)):
            made.update(zip(pack, rows))
    return [made[place] for place in range(len(planned))]


async def _carry_out_plan(pack: Sequence[Planned], models: Models) -> list[list[Candidate]]:
    (entry,) = pack
    CHAIN.set((entry.seed.id,))
    expert, reviewer = Counted(models.expert, models.args.retry_cut), Counted(models.reviewer)
    text = entry.text
    completion = await expert(plan_request(text, entry.plan, models.args.sampling))
    transition = no_rewrite(text, entry.plan[-1].name, completion)
    if transition is None:
        rewrite = entry.completed(strip_chatter(completion.text, text))
        verdict = await review(entry.seed.text, rewrite, (), entry.plan, reviewer)
        found = entry.verifiers if verdict.passed else ()
        transition = Transition(text, entry.plan[-1].name, rewrite, verdict, completion.model, verifiers=found)
    transition = replace(transition, instruction=entry.seed.text)
    calls = {CallKind.REWRITE: expert.spent(), CallKind.REVIEW: reviewer.spent()}
    return [[_from_plan(entry, entry.path(entry.plan), transition, calls)]]


def _all_added(entry: Planned) -> Candidate:
    """The candidate of a plan that code has carried out; its answer is requested later."""
    last, edit = entry.added[-1].operation.name, "\n".join(one.sentence for one in entry.added)
    found = Review(Verdict.NOT_EQUAL)
    transition = Transition(entry.seed.text, last, entry.text, found, BY_RULES, None, edit, entry.verifiers)
    return _from_plan(entry, entry.path(()), transition, {})


def _steps(entry: Planned, models: Models, attempt: int = 0) -> tuple[Step, ...]:
    """The edits to ask for; none where whole rewrites are written."""
    return () if writes_whole(models.expert) else steps_for(entry.text, entry.plan, attempt)


@dataclass(frozen=True)
class _Got:
    """The expert's row for one plan, and the calls booked on it; a shared call is booked on the first of its plans."""

    row: EditedRow
    completion: Completion
    calls: int = 0


async def _carry_out_pack(pack: Sequence[Planned], models: Models) -> list[list[Candidate]]:
    """Ask for a pack; then again for the rows that could not be read, and only for those.

    The last retry, and that of a failed call, asks for each row by itself, since one row may make the others fail.
    """
    got: dict[int, _Got] = {}
    packs, retries = [list(range(len(pack)))], models.args.row_retries
    for attempt in range(retries + 1):
        asking = [_ask_pack([pack[place] for place in places], models, attempt) for places in packs]
        asked = await together(asking, is_immediate(models.expert))
        for places, answers in zip(packs, asked):
            for place, new in zip(places, answers):
                got[place] = replace(new, calls=new.calls + got[place].calls) if place in got else new
        packs = [left for places in packs if (left := _to_ask_again(places, got))]
        if attempt + 1 >= retries or any(got[places[0]].completion.error for places in packs):
            packs = [[place] for places in packs for place in places]
    at_once = is_immediate(models.reviewer)
    return await together([_reviewed(pack[place], got[place], models) for place in range(len(pack))], at_once)


def _to_ask_again(places: Sequence[int], got: Mapping[int, _Got]) -> list[int]:
    """Rows without a text. A call that failed for one row alone has been retried by its generator already."""
    left = [place for place in places if got[place].row.problem]
    return [] if len(places) == 1 and got[places[0]].completion.error else left


async def _ask_pack(pack: Sequence[Planned], models: Models, attempt: int) -> list[_Got]:
    CHAIN.set(tuple(entry.seed.id for entry in pack))
    # A pack that was cut still holds whole rows; only a single row needs the same request with more tokens.
    expert = Counted(models.expert, models.args.retry_cut and len(pack) == 1)
    sampling = replace(models.args.sampling, max_tokens=models.args.max_tokens * len(pack))
    ask = _ask_for_edits if _steps(pack[0], models) else _ask_for_whole
    rows, completion = await ask(pack, models, expert, sampling, attempt)
    if completion.error:
        rows = [EditedRow(entry.text, problem=Reason.CALL_FAILED) for entry in pack]
    calls = expert.spent()
    return [_Got(row, completion, 0 if place else calls) for place, row in enumerate(rows)]


async def _ask_for_edits(
    pack: Sequence[Planned], models: Models, expert: Counted, sampling: Sampling, attempt: int
) -> tuple[list[EditedRow], Completion]:
    items = [(entry.text, _steps(entry, models, attempt)) for entry in pack]
    answers = models.args.answered_in_walk
    completion = await expert(edit_plan_request(items, sampling, attempt, answers))
    return read_edited(completion.text, items, answers, completion.finish_reason == Finish.LENGTH), completion


async def _ask_for_whole(
    pack: Sequence[Planned], models: Models, expert: Counted, sampling: Sampling, attempt: int
) -> tuple[list[EditedRow], Completion]:
    items = [(entry.text, entry.plan) for entry in pack]
    completion = await expert(pack_request(items, sampling, attempt))
    cut = completion.finish_reason == Finish.LENGTH
    rows = read_rows(completion.text, pack_key(items), len(pack), cut)
    # Of a row that can't be read, what the model wrote is kept.
    return [
        EditedRow(row.instruction or completion.text, plan, answer=row.answer, problem=row.problem)
        for row, (text, plan) in zip(rows, items)
    ], completion


async def _reviewed(entry: Planned, got: _Got, models: Models) -> list[Candidate]:
    """The candidate of a row, and those of its lost operations.

    The answer is checked first, which costs nothing; the reviewer may cost a call.
    """
    CHAIN.set((entry.seed.id,))
    text, row, model = entry.seed.text, got.row, got.completion.model
    done = row.carried_out or entry.plan
    reviewer = Counted(models.reviewer)
    answers = models.args.answered_in_walk
    problems: tuple[str, ...] = (row.problem,) if row.problem else ()
    if answers and not problems:
        problems = response_violations(row.answer, instruction=row.text)
    rewrite = row.text
    if problems:
        verdict = Review(Verdict.UNREADABLE, problems)
    else:
        rewrite = entry.completed(rewrite if row.edits else strip_chatter(rewrite, entry.text))
        verdict = await review(text, rewrite, (), done, reviewer)
    edit = "\n".join(row.edits)
    error, found = got.completion.error, entry.verifiers if verdict.passed else ()
    transition = Transition(text, done[-1].name, rewrite, verdict, model, error, edit, found)
    calls = {CallKind.REWRITE: got.calls, CallKind.REVIEW: reviewer.spent()}
    candidate = _from_plan(entry, entry.path(done), transition, calls)
    lost = [_lost(entry, one, place, model) for place, one in enumerate(row.lost)]
    return [replace(candidate, response=row.answer, responder=model if row.answer else ""), *lost]


def _lost(entry: Planned, lost: Lost, place: int, model: str) -> Candidate:
    """The candidate of an operation whose line could not be used; the call is booked on that of its plan."""
    text, name = entry.seed.text, lost.operation.name
    verdict = Review(Verdict.UNREADABLE, (lost.problem,))
    transition = Transition(text, name, text, verdict, model, edit=lost.said)
    return new_candidate(entry.seed, entry.seed.id, entry.step, (name,), transition, {}, f"lost {place}")


def _eliminated(candidate: Candidate, problem: str | None) -> Candidate:
    if problem is None:
        return candidate
    verdict = replace(candidate.transition.review, violations=(problem,))
    return replace(candidate, transition=replace(candidate.transition, review=verdict))


def _nothing_planned(entry: Planned) -> Candidate:
    """A candidate for a seed that got no expert call, so that it leaves a trace."""
    text = entry.seed.text
    transition = Transition(text, "stop", text, Review(Verdict.UNREADABLE, (Reason.NOTHING_PLANNED,)), "")
    return new_candidate(entry.seed, entry.seed.id, entry.step, (), transition, entry.calls)


def _from_plan(
    entry: Planned, path: tuple[str, ...], transition: Transition, calls: Mapping[CallKind, int]
) -> Candidate:
    spent = Counter(entry.calls) + Counter(calls)
    return new_candidate(entry.seed, entry.seed.id, entry.step, path, transition, spent)
