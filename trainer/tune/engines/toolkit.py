"""Train with NVIDIA's nemo_toolkit: a Lightning loop under its exp_manager: `python toolkit.py tune.json`.

It runs in the train environment and imports nothing of ours but its neighbour. nemo_toolkit 3 trains no text model by
itself: model, LoRA, data and labels are NeMo AutoModel's here, too. exp_manager gives the run folder, the newest and
the best checkpoint, the early stop and the way back after a kill.

One step of Lightning is one step of the optimiser: the rows of a step come as one batch and are divided here, so that
the loss is the mean over all its labels, as that of `automodel.py` is, and not a mean of means.
What it writes and prints is the same as there.
"""

import json
import math
import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for the neighbour: python -P leaves it out

import lightning.pytorch as pl
import torch
from automodel import data_settings, on_cpu, write_versions
from lightning.pytorch.utilities.exceptions import _TunerExitException
from nemo.utils.exp_manager import _flush_in_flight_batch_progress, exp_manager
from nemo_automodel import NeMoAutoModelForCausalLM
from nemo_automodel._transformers.auto_tokenizer import NeMoAutoTokenizer
from nemo_automodel.components._peft.lora import PeftConfig
from nemo_automodel.components.checkpoint.config import CheckpointingConfig
from nemo_automodel.components.datasets.llm.chat_dataset import ChatDataset
from nemo_automodel.components.datasets.utils import default_collater
from omegaconf import OmegaConf
from torchdata.stateful_dataloader import StatefulDataLoader

IGNORED = -100
LEAST_RATE = 0.01
"""Of the learning rate, at the end."""


class Student(pl.LightningModule):
    """The base model with LoRA's weights, of which alone a checkpoint holds anything."""

    def __init__(self, told: dict, steps: int) -> None:
        super().__init__()
        self.told, self.steps = told, steps
        self.automatic_optimization = False
        self.strict_loading = False  # the base's weights are in no checkpoint
        self.peft = PeftConfig(
            target_modules=[told["target_modules"]],
            dim=told["rank"],
            alpha=told["alpha"],
            dropout=told["dropout"],
            use_triton=told["device"] == "gpu",
        )
        self.llm = NeMoAutoModelForCausalLM.from_pretrained(
            told["base"],
            torch_dtype=getattr(torch, told["precision"]),
            attn_implementation="sdpa",
            peft_config=self.peft,
        )
        self.sums = [0.0, 0]

    def summed(self, rows: dict) -> torch.Tensor:
        """The loss of all labels together. AutoModel's datasets have shifted them already."""
        logits = self.llm(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"]).logits
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), rows["labels"].flatten(), ignore_index=IGNORED, reduction="sum"
        )

    def training_step(self, parts: list[dict], _: int) -> dict:
        """One step of the optimiser, over parts that fit the memory."""
        labels = sum(int((part["labels"] != IGNORED).sum()) for part in parts)
        total = 0.0
        for part in parts:
            loss = self.summed(part) / max(1, labels)
            self.manual_backward(loss)
            total += float(loss.detach())
        optimizer, rate = self.optimizers(), self.lr_schedulers()
        self.clip_gradients(optimizer, gradient_clip_val=1.0, gradient_clip_algorithm="norm")
        optimizer.step()
        optimizer.zero_grad()
        rate.step()
        tokens = sum(int(part["attention_mask"].sum()) for part in parts)
        return {"told": {"loss": total, "num_label_tokens": labels, "num_tokens_per_step": tokens}}

    def on_validation_epoch_start(self) -> None:
        """Begin to count."""
        self.sums = [0.0, 0]

    def validation_step(self, parts: list[dict], _: int) -> None:
        """Add up."""
        for part in parts:
            self.sums[0] += float(self.summed(part))
            self.sums[1] += int((part["labels"] != IGNORED).sum())

    def on_validation_epoch_end(self) -> None:
        """The mean over all labels: for the choice of the best checkpoint, and for whoever watches."""
        loss = self.sums[0] / max(1, self.sums[1])
        self.log("val_loss", loss)
        if not self.trainer.sanity_checking:
            tell(self.told, "validation", {"step": self.global_step - 1, "val_loss": loss})

    def configure_optimizers(self) -> dict:
        """As `automodel.py`: AdamW, a warm-up, then down to a hundredth along a cosine."""
        trained = [weight for weight in self.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.told["learning_rate"], weight_decay=0.0)
        warmup = min(int(self.steps * self.told["warmup_share"]), self.steps - 1)

        def share(step: int) -> float:
            if step < warmup:
                return step / warmup
            gone = min(1.0, (step - warmup) / max(1, self.steps - warmup))
            return LEAST_RATE + (1 - LEAST_RATE) * (1 + math.cos(math.pi * gone)) / 2

        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, share)}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Only what was trained."""
        checkpoint["state_dict"] = {name: it for name, it in checkpoint["state_dict"].items() if "lora_" in name}


def tell(told: dict, log: str, row: dict) -> None:
    """Add a line for whoever watches, as AutoModel's own loggers write it."""
    row["timestamp"] = datetime.now(UTC).isoformat()
    with (Path(told["folder"]) / "run" / f"{log}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


class Watch(pl.Callback):
    """Tells of each step; on SIGTERM writes a checkpoint after the step that runs, and stops."""

    def __init__(self, told: dict) -> None:
        self.told, self.stopped, self.begun = told, False, time.monotonic()
        signal.signal(signal.SIGTERM, self.stop)  # Lightning calls it from its own handler
        # exp_manager's own is for GPUs alone.

    def stop(self, *_: object) -> None:
        """Remember it."""
        self.stopped = True

    def on_train_batch_end(self, trainer: pl.Trainer, module: Student, made: dict, *_: object) -> None:
        """After a step."""
        now = time.monotonic()
        row = {"step": module.global_step - 1, "epoch": trainer.current_epoch, **made["told"]}
        row["lr"] = module.lr_schedulers().get_last_lr()[0]
        row["tps"] = row["num_tokens_per_step"] / (now - self.begun)
        self.begun = now
        tell(self.told, "training", row)
        if self.stopped:
            _flush_in_flight_batch_progress(trainer)  # or the step would be made twice, says NeMo of its own timer
            keeper = trainer.checkpoint_callback
            keeper._save_last_checkpoint(trainer, keeper._monitor_candidates(trainer))  # noqa: SLF001 -- as NeMo does
            raise _TunerExitException


def loader(told: dict, name: str, tokenizer: object, **more: object) -> StatefulDataLoader:
    """The rows of a step as a list of parts. The loader knows where it is: after a kill it goes on there."""
    settings = {key: value for key, value in data_settings(told).items() if key != "_target_"}

    def divided(rows: list) -> list[dict]:
        size = told["micro_batch"]
        return [default_collater(rows[at : at + size]) for at in range(0, len(rows), size)]

    return StatefulDataLoader(
        ChatDataset(told[name], tokenizer, **settings), batch_size=told["batch"], collate_fn=divided, **more
    )


def main(path: str) -> None:
    """Train by the configuration in this file."""
    told = json.loads(Path(path).read_text(encoding="utf-8"))
    steps, run = told["steps"], Path(told["folder"]) / "run"
    if not torch.cuda.is_available():
        on_cpu(torch)
    write_versions(run.parent)
    pl.seed_everything(told["seed"])
    tokenizer = NeMoAutoTokenizer.from_pretrained(told["base"])
    watch = Watch(told)
    every = min(told["validate_every"], steps)
    trainer = pl.Trainer(
        accelerator="gpu" if told["device"] == "gpu" else "cpu",
        devices=1,
        max_steps=steps,
        max_epochs=-1,
        val_check_interval=every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,  # exp_manager does it
        enable_progress_bar=False,
        callbacks=[watch],
    )
    checkpoints = {
        "dirpath": str(run / "checkpoints"),
        "monitor": "val_loss",
        "mode": "min",
        "save_top_k": 1,
        "save_last": True,
        "save_nemo_on_train_end": False,
        "save_on_train_epoch_end": False,  # but after each validation
    }
    settings = {
        "explicit_log_dir": str(run / "log"),
        "create_tensorboard_logger": False,
        "resume_if_exists": True,
        "resume_ignore_no_checkpoint": True,
        "checkpoint_callback_params": checkpoints,
        "create_preemption_callback": False,  # `Watch`, which also works without a GPU
        "create_early_stopping_callback": True,
        "early_stopping_callback_params": {"monitor": "val_loss", "patience": told["patience"], "min_delta": 0.0},
        "log_step_timing": False,
        "log_tflops_per_sec_per_gpu": False,
    }
    exp_manager(trainer, OmegaConf.create(settings))
    module = Student(told, steps)
    val = loader(told, "val", tokenizer)
    watch.begun = time.monotonic()
    trainer.fit(module, loader(told, "train", tokenizer, shuffle=True), val)
    last = module.global_step
    if watch.stopped and last < steps:
        print("END stopped", last, flush=True)  # noqa: T201 -- whoever watches reads it
        return
    if last < steps:
        print("EARLY STOP", flush=True)  # noqa: T201 -- the same
    keep(trainer, module, val, tokenizer, run)
    print("END", "finished" if last >= steps else "stopped", last, flush=True)  # noqa: T201 -- the same


def keep(trainer: pl.Trainer, module: Student, val: StatefulDataLoader, tokenizer: object, run: Path) -> None:
    """Write the best adapter, where AutoModel's recipe leaves its own."""
    best = trainer.checkpoint_callback
    newest = float("inf")
    if module.global_step % trainer.val_check_batch:  # the last steps were not measured
        newest = trainer.validate(module, val, verbose=False)[0]["val_loss"]
    if best.best_model_path and float(best.best_model_score) <= newest:
        weights = torch.load(best.best_model_path, map_location="cpu", weights_only=False)["state_dict"]
        module.load_state_dict(weights, strict=False)
    base = module.told["base"]
    saver = CheckpointingConfig(is_peft=True, checkpoint_dir=str(run / "LOWEST_VAL"), model_repo_id=base)
    module.llm.save_pretrained(
        str(run / "LOWEST_VAL"),
        checkpointer=saver.build(dp_rank=0, tp_rank=0, pp_rank=0),
        tokenizer=tokenizer,
        peft_config=module.peft,
        is_final_checkpoint=True,
    )


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main(sys.argv[1])
