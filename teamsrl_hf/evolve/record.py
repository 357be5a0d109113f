"""What identifies a run: in go an evolver and seeds, out come values for run.json, lineage.json and the card."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ..commands.arguments import seeds_digest
from ..environment.review import Reviewing, reviewing_of
from ..errors import UserError
from ..public import public_model
from ..publish.cards import dataset_card, read_front_matter
from ..publish.counts import DatasetStatistics
from ..publish.licenses import settle_license
from ..publish.lineage import seeds_facts, versions, weights_digest
from ..text.operations import facts_of
from ..types import Seed
from .evolution import ROLES, Evolution


@dataclass(frozen=True)
class RunRecord:
    """What a command knows of its run; `record_of` makes one for an evolver in Python.

    Attributes:
        arguments: Values by name, written to run.json. A folder is continued only by a run with the same.
        origin: Seeds, chooser, models, versions and either `recipe` (the YAML that makes the dataset again) or
            `evolver` (the name of its class); written to lineage.json, and shown by the card.
    """

    arguments: Mapping[str, Any]
    origin: Mapping[str, Any]


def record_of(
    evolver: Evolution, train: Sequence[Seed], test: Sequence[Seed], overridden: Collection[str] = ()
) -> RunRecord:
    """The record of a run in Python.

    Args:
        overridden: Names of the methods that the evolver's class has from a subclass.
    """
    models = {role: model.model for role in ROLES if (model := getattr(evolver, role)) is not None}
    name = type(evolver).__qualname__
    chooser = {"name": f"{name}.choose"} if "choose" in overridden else _chooser_facts(evolver.chooser)
    settings = {key: value for key, value in asdict(evolver.args).items() if key != "concurrency"}
    arguments = {
        **settings,
        "evolver": name,
        "operations": [facts_of(operation) for operation in evolver.operations],
        "chooser": chooser,
        **models,
        "seeds": seeds_digest(train),
        "test_seeds": seeds_digest(test),
    }
    reviewing = reviewing_of(evolver.reviewer)
    if reviewing != Reviewing():
        arguments["reviewing"] = asdict(reviewing)
    origin = {
        "seeds": seeds_facts("", train, test, None),
        "chooser": {"source": None, "weights": None, **chooser},
        "models": {role: public_model(model) for role, model in models.items()},
        "reviewing": {"questions": list(reviewing.questions), "calibration": None},
        "versions": versions(),
        "recipe": None,
        "evolver": name,
    }
    return RunRecord(arguments, origin)


def _chooser_facts(chooser: Any) -> dict[str, Any]:
    """Name, source and weights; a policy's chooser is a method of the policy."""
    owner = getattr(chooser, "__self__", chooser)
    if hasattr(owner, "save_pretrained"):
        source = getattr(owner, "name_or_path", None) or None
        # A Hub id may stand for other weights by now.
        weights = weights_digest(source) if source and Path(source).exists() else None
        return {"name": "policy", "source": source, "weights": weights}
    named = getattr(owner, "name", None) or getattr(chooser, "__name__", None)
    return {"name": named or type(chooser).__name__}


@dataclass(frozen=True)
class CardSettings:
    """What the card of a dataset says beside the run's numbers.

    Attributes:
        license: As the Hub names it; None is "unknown".
        template: Path of a Jinja file that is filled in instead of `model_cards/dataset_card.md`.

    Raises:
        UserError: The Hub does not know the licence, or the template can't be read.
    """

    license: str | None = None
    language: str = "en"
    template: str | Path | None = None

    def __post_init__(self) -> None:
        _ = self.arguments  # Before a folder is claimed.

    @property
    def arguments(self) -> dict[str, Any]:
        """What a run that continues another must share with it; of the template, a hash."""
        if self.template is None:
            digest = None
        else:
            try:
                digest = blake2b(Path(self.template).read_bytes(), digest_size=8).hexdigest()
            except OSError as error:
                raise UserError(
                    f"Can't read the card template {self.template} ({error.strerror}); check its path."
                ) from error
        license = settle_license(self.license, ours=False)
        return {"license": license, "language": self.language, "card_template": digest}

    def text(
        self,
        statistics: DatasetStatistics,
        configs: Sequence[Mapping[str, Any]],
        origin: Mapping[str, Any],
        evolver: Evolution,
        checks: Sequence[str] = (),
        plots: Mapping[str, str] | None = None,
        cost: str | None = None,
    ) -> str:
        """The text of README.md; for the arguments see `dataset_card`."""
        roles = {role: origin["models"].get(role) for role in ROLES}
        script_args = SimpleNamespace(**self.arguments, **roles, chooser=origin["chooser"]["name"])
        about = checks, plots, origin, self.template, cost
        return dataset_card(statistics, configs, evolver.operations, script_args, evolver.args, *about)

    def check(self, origin: Mapping[str, Any], evolver: Evolution) -> None:
        """Fill in the template with the counts of an empty run, before anything is paid for.

        Raises:
            UserError: It is no template, uses an unknown name, or leaves out the YAML that `load_dataset` needs.
        """
        if self.template is None:
            return
        configs = [{"config_name": "default", "data_files": []}]
        meta, _ = read_front_matter(self.text(DatasetStatistics(), configs, origin, evolver))
        if meta.get("configs") != configs:
            raise UserError(
                f"The card template {self.template} must begin with {{{{ meta }}}}, the YAML that names the files."
            )
