"""Train with NVIDIA NeMo AutoModel's recipe for next-token prediction: `python automodel.py tune.json`.

It runs in the train environment and imports nothing of ours. It resumes from the newest checkpoint in its folder by
itself; SIGTERM makes it write one and stop. The last line that it prints says how it ended: `END finished STEPS`
or `END stopped STEPS`.

The recipe: https://docs.nvidia.com/nemo/automodel/latest/guides/llm/finetune.html
"""

import json
import os
import sys
from importlib import metadata
from pathlib import Path

ALONE = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
"""What torchrun sets where there are several processes."""

NEVER = 10**9


def data_settings(told: dict[str, object]) -> dict[str, object]:
    """How rows become tokens and labels."""
    return {
        "_target_": "nemo_automodel.components.datasets.llm.chat_dataset.ChatDataset",
        "seq_length": told["sequence_tokens"],
        "truncation": True,
        "mask_generation_prompt": True,  # the loss is of the answer alone, not of `<|im_start|>assistant` before it
    }


def recipe(told: dict[str, object], steps: int) -> dict[str, object]:
    """AutoModel's configuration for ours."""
    gpu = told["device"] == "gpu"
    data = data_settings(told)
    loader = {
        "_target_": "torchdata.stateful_dataloader.StatefulDataLoader",
        "collate_fn": "nemo_automodel.components.datasets.utils.default_collater",
    }
    every = min(int(str(told["validate_every"])), steps)
    made: dict[str, object] = {
        "recipe": "TrainFinetuneRecipeForNextTokenPrediction",
        "seed": told["seed"],
        "step_scheduler": {
            "global_batch_size": told["batch"],
            "local_batch_size": told["micro_batch"],
            "max_steps": steps,
            "num_epochs": NEVER if told["max_steps"] else told["epochs"],
            "ckpt_every_steps": every,  # the same as of validation: LOWEST_VAL is the best of those that are saved
            "val_every_steps": every,
            "save_checkpoint_every_epoch": False,
        },
        "dist_env": {"backend": "nccl" if gpu else "gloo", "timeout_minutes": 10},
        "rng": {
            "_target_": "nemo_automodel.components.training.rng.StatefulRNG",
            "seed": told["seed"],
            "ranked": True,
        },
        "model": {
            "_target_": "nemo_automodel.NeMoAutoModelForCausalLM.from_pretrained",
            "pretrained_model_name_or_path": told["base"],
            "torch_dtype": told["precision"],
            "attn_implementation": "sdpa",
        },
        "peft": {
            "_target_": "nemo_automodel.components._peft.lora.PeftConfig",
            "target_modules": told["target_modules"],
            "dim": told["rank"],
            "alpha": told["alpha"],
            "dropout": told["dropout"],
            "use_triton": gpu,
        },
        "distributed": {"strategy": "fsdp2" if gpu else "ddp"},
        "loss_fn": {"_target_": "nemo_automodel.components.loss.masked_ce.MaskedCrossEntropy"},
        "dataset": data | {"path_or_dataset_id": told["train"]},
        "validation_dataset": data | {"path_or_dataset_id": told["val"]},
        "dataloader": loader | {"shuffle": True},
        "validation_dataloader": loader | {"batch_size": told["micro_batch"]},
        "optimizer": {"_target_": "torch.optim.AdamW", "lr": told["learning_rate"], "weight_decay": 0.0},
        "checkpoint": {
            "enabled": True,
            "checkpoint_dir": str(Path(str(told["folder"])) / "run"),
            "model_save_format": "safetensors",
            "save_consolidated": False,
            "max_recent_checkpoints": 2,
        },
        "clip_grad_norm": {"max_norm": 1.0},
        "early_stop": {"patience": told["patience"]},
    }
    warmup = int(steps * float(str(told["warmup_share"])))
    if steps > 1:  # the recipe asserts that the warm-up is shorter than the run
        made["lr_scheduler"] = {
            "lr_decay_style": "cosine",
            "lr_warmup_steps": min(warmup, steps - 1),
            "min_lr": float(str(told["learning_rate"])) / 100,
        }
    if told["packing"]:
        made["packed_sequence"] = {"packed_sequence_size": told["sequence_tokens"], "packing_strategy": "neat"}
    return made


def write_versions(folder: Path) -> None:
    """Say what trains."""
    told = {name: metadata.version(name) for name in ("torch", "transformers", "nemo_automodel", "nemo_toolkit")}
    (folder / "run").mkdir(exist_ok=True)
    (folder / "run" / "versions.json").write_text(json.dumps(told, indent=1), encoding="utf-8")


def main(path: str) -> None:
    """Train by the configuration in this file."""
    told = json.loads(Path(path).read_text(encoding="utf-8"))
    folder = Path(told["folder"])
    written = folder / "recipe.json"  # JSON is YAML, too
    written.write_text(json.dumps(recipe(told, told["steps"]), indent=1), encoding="utf-8")
    write_versions(folder)
    for name, value in ALONE.items():
        os.environ.setdefault(name, value)

    import torch  # noqa: PLC0415 -- it takes long, and reads the environment
    from nemo_automodel.components.config._arg_parser import parse_args_and_load_config  # noqa: PLC0415 -- the same
    from nemo_automodel.components.loggers import metric_logger  # noqa: PLC0415 -- the same
    from nemo_automodel.recipes.llm import train_ft  # noqa: PLC0415 -- the same

    if not torch.cuda.is_available():
        on_cpu(torch)
    # Its loggers keep 100 records to themselves: whoever watches wants each at once.
    train_ft.build_metric_logger = lambda path, **_: metric_logger.build_metric_logger(path, buffer_size=1, flush=True)

    class Recipe(train_ft.TrainFinetuneRecipeForNextTokenPrediction):
        """It has no early stop of its own: after so many validations without a better loss it stops as on SIGTERM."""

        best, worse = float("inf"), 0

        def log_val_metrics(self, val_name, log_data, metric_logger=None):  # noqa: ANN001, ANN202 -- the base's
            super().log_val_metrics(val_name, log_data, metric_logger)
            loss = log_data.metrics["val_loss"]
            self.worse = 0 if loss < self.best else self.worse + 1
            self.best = min(self.best, loss)
            if self.worse >= self.cfg.get("early_stop.patience", NEVER):
                print("EARLY STOP", flush=True)  # noqa: T201 -- whoever watches reads it
                self.step_scheduler.sigterm_flag = True

    sys.argv = [sys.argv[0], "-c", str(written)]
    run = Recipe(parse_args_and_load_config())
    run.setup()
    run.run_train_validation_loop()
    last = run.step_scheduler.step
    print("END", "finished" if last >= told["steps"] else "stopped", last, flush=True)  # noqa: T201 -- the same


def on_cpu(torch) -> None:  # noqa: ANN001 -- a module
    """AutoModel 0.7 asks CUDA for a device and memory figures without looking whether it is there."""
    from nemo_automodel._transformers import auto_model  # noqa: PLC0415 -- it takes long

    torch.cuda.current_device = lambda: 0
    torch.cuda.reset_peak_memory_stats = lambda *_, **__: None
    torch.cuda.max_memory_allocated = lambda *_, **__: 0
    real = auto_model.apply_model_infrastructure

    def apply(*args, **kwargs):  # noqa: ANN002, ANN003, ANN202 -- the library's
        return real(*args, **(kwargs | {"device": torch.device("cpu")}))

    auto_model.apply_model_infrastructure = apply


if __name__ == "__main__":
    main(sys.argv[1])
