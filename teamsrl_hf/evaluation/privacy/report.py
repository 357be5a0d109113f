"""The privacy audit: in go attack scores of members and non-members, out come a report, a plot and a card's section.

Epochs, learning rate and capacity change these figures more than the data does: compare models only where they are
equal.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .rates import auc, group_weights, quantile_interval, resampled_auc, resampled_tpr, roc_curve, tpr_at_fpr
from .scores import ATTACKS, Row, attack
from .split import Groups, blind_check

# Below this many non-members the interval of a rate at 1 % false positives is about as wide as the rate itself.
NON_MEMBERS_FOR_TPR = 2000


def audit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    members: Sequence[Row],
    non_members: Sequence[Row],
    *,
    reference: PreTrainedModel | None = None,
    groups: tuple[Groups, Groups] | None = None,
    seed: int = 0,
    batch_size: int = 8,
    max_length: int | None = 1024,
) -> dict[str, Any]:
    """AUC of every attack with its 95 % bootstrap interval, and whether the split allows any conclusion.

    Without a reference model (see `membership_scores`) leakage is understated.

    Args:
        groups: The group of each member and of each non-member, where rows are related; intervals then resample
            groups, and the blind check never trains on a row's sibling.
        batch_size, max_length: As for `membership_scores`.

    Returns:
        As `report`.
    """
    options: dict[str, Any] = {"reference": reference, "batch_size": batch_size, "max_length": max_length}
    pairs = attack(model, tokenizer, members, non_members, **options)
    return report(pairs, blind_check(members, non_members, groups, seed), groups, seed)


def report(
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]],
    blind: Mapping[str, Any],
    groups: tuple[Groups, Groups] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """What the scores of `attack` say, given a `blind_check` of the same rows.

    Returns:
        `attacks`: name -> `auc`, `interval` and, from 2,000 non-members, `tpr_at_1_percent_fpr` with `tpr_interval`;
        `control`: the same for the reference model's loss, which must not separate members, or None; `blind`;
        `split_ok`: whether the blind check's p-value is at least .05. If not, members and non-members differ by
        themselves and the attacks' figures mean nothing; one fair split in twenty is flagged by chance.
        `conclusion`: a sentence; it says that members were found only if the interval of an attack, corrected for the
        number of attacks, lies above .5.
    """
    measured = {name: _measured(*scores, groups, seed) for name, scores in pairs.items()}
    control = measured.pop("control")[0] if "control" in measured else None
    level = 1 - 0.05 / len(measured)
    sure = [name for name, (_, drawn) in measured.items() if quantile_interval(drawn, level)[0] > 0.5]
    found = {
        "members": len(pairs["loss"][0]),
        "non_members": len(pairs["loss"][1]),
        "attacks": {name: figures for name, (figures, _) in measured.items()},
        "control": control,
        "blind": dict(blind),
        "split_ok": blind["p_value"] >= 0.05,
    }
    return found | {"conclusion": _conclusion(found, sure)}


def _conclusion(found: Mapping[str, Any], sure: Sequence[str]) -> str:
    if not found["split_ok"]:
        return (
            "No conclusion: words and lengths alone separate members from non-members "
            f"(AUC {found['blind']['auc']:.2f}, by chance up to {found['blind']['by_chance']:.2f}), so the two are "
            "not of one distribution and the attacks' figures mean nothing."
        )
    if sure:
        best = max(sure, key=lambda name: found["attacks"][name]["auc"])
        return (
            f"The attacks separate members from non-members: best attack `{best}`, {_figure(found['attacks'][best])}."
        )
    return (
        f"No attack separated {found['members']} members from {found['non_members']} non-members. "
        "This does not prove privacy: stronger attacks or more rows may."
    )


def _figure(measured: Mapping[str, Any]) -> str:
    low, high = measured["interval"]
    return f"AUC {measured['auc']:.2f}, 95 % interval {low:.2f} to {high:.2f}"


def _measured(
    members: np.ndarray, non_members: np.ndarray, groups: tuple[Groups, Groups] | None, seed: int
) -> tuple[dict[str, Any], np.ndarray]:
    """AUC, interval and, given enough rows, true positive rate of one attack; and the resampled AUCs."""
    drawn = resampled_auc(members, non_members, group_weights(members, non_members, groups, seed))
    found: dict[str, Any] = {"auc": auc(members, non_members), "interval": quantile_interval(drawn)}
    if len(non_members) >= NON_MEMBERS_FOR_TPR:
        found["tpr_at_1_percent_fpr"] = tpr_at_fpr(members, non_members)
        rates = resampled_tpr(members, non_members, group_weights(members, non_members, groups, seed))
        found["tpr_interval"] = quantile_interval(rates)
    return found, drawn


def roc_plot(pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], path: str | Path) -> Path:
    """Draw the ROC curves of all attacks, and of the control, as a PNG; returns `path`.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("The ROC plot needs matplotlib: pip install 'teamsrl-hf[evaluation]'") from error
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    for name, scores in pairs.items():
        axes.plot(*roc_curve(*scores), linestyle=":" if name == "control" else "-", label=f"{name} {auc(*scores):.2f}")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.5)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal", xlim=(0, 1), ylim=(0, 1))
    axes.legend(title="AUC", loc="lower right")
    # Leave out matplotlib's version, so that the same scores give the same file.
    figure.savefig(path, dpi=120, metadata={"Software": None})
    return Path(path)


def audit_section(found: Mapping[str, Any], plot: str | None = None) -> str:
    """The card's section on an audit.

    If the split is not sound, the attacks' figures are left out: a reader would take them for a claim.

    Args:
        found: What `report` returns; and `membership`, "recorded" only if the rows were compared with the record of
            the training, and `weights`, the hash of the model's weights.
        plot: File name of the ROC curves.
    """
    lines = ["## Privacy audit", "", found["conclusion"], "", _whose_rows(found), ""]
    shown = found["attacks"] if found["split_ok"] else {}
    lines += ["| | AUC | 95 % interval | TPR at 1 % FPR |", "|---|---|---|---|"]
    lines += [_line(ATTACKS[name], measured) for name, measured in shown.items()]
    lines += [_line("control: loss of the reference model", found["control"])] if found["control"] else []
    blind = found["blind"]
    lines += [
        "",
        "Blind check of the split: a classifier on words and lengths, which never saw the model, has an AUC of "
        f"{blind['auc']:.3f} (by chance up to {blind['by_chance']:.3f}, p = {blind['p_value']:.3f}).",
    ]
    if found["non_members"] < NON_MEMBERS_FOR_TPR:
        lines += ["", f"TPR at 1 % FPR is not shown: it takes {NON_MEMBERS_FOR_TPR:,} non-members."]
    if "reference" not in found["attacks"]:
        lines += ["", "No reference model was given, so leakage is understated."]
    if plot and found["split_ok"]:
        lines += ["", f"![ROC curves of the attacks]({plot})"]
    if found.get("weights"):
        lines += ["", f"Measured on the weights with SHA-256 `{found['weights']}`."]
    return "\n".join([*lines, "", "Epochs, learning rate and capacity change these figures more than the data does."])


def _whose_rows(found: Mapping[str, Any]) -> str:
    """What is known about the two sides, and what an AUC means."""
    members, others = found["members"], found["non_members"]
    if found.get("membership") == "recorded":
        known = f"By its record, the model was trained on the {members} members and not on the {others} non-members."
    else:
        known = (
            "Unknown: no record says which rows this model was trained on. Whoever ran the audit claims that "
            f"{members} rows are members and {others} are not."
        )
    return f"{known} AUC is the chance that a member scores above a non-member; .5 is chance."


def _line(name: str, measured: Mapping[str, Any]) -> str:
    low, high = measured["interval"]
    rate = "–"
    if "tpr_at_1_percent_fpr" in measured:
        ends = measured["tpr_interval"]
        rate = f"{measured['tpr_at_1_percent_fpr']:.3f} ({ends[0]:.3f} to {ends[1]:.3f})"
    return f"| {name} | {measured['auc']:.3f} | {low:.3f} to {high:.3f} | {rate} |"
