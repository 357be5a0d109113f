"""Evolved examples beside the metrics: in goes the trainer's last rollout, out come printed lines and tables."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm
from transformers import TrainerCallback

if TYPE_CHECKING:
    from .trainer import InstructionGenPPOTrainer


class EvolvedExamplesCallback(TrainerCallback):
    """At every log, shows some chains of the last rollout and writes all of them to `<output_dir>/examples`.

    Tables also go to wandb and trackio where `report_to` names them.

    Args:
        trainer: The trainer to watch; add the callback with `trainer.add_callback(EvolvedExamplesCallback(trainer))`.
        num_examples: Chains to print; 0 prints none.
    """

    def __init__(self, trainer: "InstructionGenPPOTrainer", num_examples: int = 3):
        self.trainer, self.num_examples = trainer, num_examples

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        if not state.is_world_process_zero or not self.trainer.last_rollout:
            return
        rows = self._rows(state.global_step)
        self._write(rows, Path(args.output_dir) / "examples" / f"examples_{state.global_step:05d}.parquet")
        self._track(rows, args.report_to)
        for row in rows[: self.num_examples]:
            tqdm.write(f"\n{row['seed']}\n  {row['operations']}  (reward {row['reward']:.2f})\n{row['final']}")

    def _rows(self, step: int) -> list[dict]:
        """One row for each chain: seed, operations (rejected ones with a cross), final text, reward, extras."""
        rollout, rewards = self.trainer.last_rollout, self.trainer.last_rewards.sum(1).tolist()
        rows = []
        for number, (trajectory, reward) in enumerate(zip(rollout, rewards)):
            marks = [t.operation if t.review.passed else f"{t.operation} ✗" for t in trajectory.transitions]
            row = {"step": step, "seed": trajectory.seed.text, "operations": " → ".join(marks)}
            extras = {name: values[number] for name, values in self.trainer.last_extras.items()}
            rows.append({**row, "final": trajectory.texts[-1], "reward": reward, **extras})
        return rows

    def _write(self, rows: list[dict], file: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), file)

    def _track(self, rows: list[dict], report_to: list[str]) -> None:
        for name in {"wandb", "trackio"} & set(report_to):
            import pandas as pd

            tracker = import_module(name)
            tracker.log({"examples": tracker.Table(dataframe=pd.DataFrame(rows))})
