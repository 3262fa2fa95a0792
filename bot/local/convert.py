"""Turns a GGUF file into the Hugging Face folder that vLLM serves and adapters are trained on.

It runs with the student environment's Python (torch, transformers and gguf are there) as a file, not as a
module of ours: `python convert.py GGUF OUT --name NAME --source-sha256 HEX [--tie-embeddings]`. It imports
nothing of ours, prints one line a stage, and writes into `OUT.partial`, which becomes OUT when it is whole.

The weights are de-quantised 4- to 5-bit ones in bfloat16: right as a base for LoRA, not the model's original
bf16 weights. The tokenizer is the one that the GGUF file holds, which splits some texts (digits) differently
from the original: train and serve from the same converted folder.
"""

import argparse
import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

CARD = "apprentice.json"


def say(text: str) -> None:
    """Print one progress line at once, so that the caller can show it."""
    print(text, flush=True)  # noqa: T201 -- standard output is this script's interface


def sha256(path: Path) -> str:
    """The file's SHA-256 in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_folder(gguf: Path, out: Path, *, tie_embeddings: bool) -> None:
    """Read the GGUF file and save model and tokenizer in the Hugging Face layout."""
    import torch  # type: ignore[import-not-found]  # noqa: PLC0415 -- seconds; the stage is announced first
    from transformers import (  # type: ignore[import-not-found]  # noqa: PLC0415 -- seconds
        AutoModelForCausalLM,
        AutoTokenizer,
    )

    say("reading the weights")
    folder, name = str(gguf.parent), gguf.name
    model: Any = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    say("reading the tokenizer")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    if tie_embeddings:
        # The file holds two copies of one matrix; the output head is the one quantised to 8 bits: the better
        # copy.
        model.get_input_embeddings().weight.data.copy_(model.get_output_embeddings().weight.data)
        model.config.tie_word_embeddings = True
        model.tie_weights()
    # Without these three save_pretrained refuses: it takes the model for a quantised one.
    model.hf_quantizer = None
    model.is_quantized = False
    del model.config.quantization_config
    say("writing the folder")
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    for path in out.iterdir():
        path.chmod(0o644)  # save_pretrained leaves the weights readable by their owner only


def main() -> int:
    """Convert one file; see the module's docstring for the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gguf", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--source-sha256", required=True)
    parser.add_argument("--tie-embeddings", action="store_true")
    args = parser.parse_args()
    partial: Path = args.out.with_name(args.out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    say("loading torch and transformers")
    write_folder(args.gguf, partial, tie_embeddings=args.tie_embeddings)
    say("hashing the result")
    card = {
        "model": args.name,
        "source": args.gguf.name,
        "source_sha256": args.source_sha256,
        "base_sha256": sha256(partial / "model.safetensors"),
        "files": {path.name: path.stat().st_size for path in sorted(partial.iterdir())},
        "note": "de-quantised from GGUF to bfloat16; a base for LoRA, not the original weights",
    }
    (partial / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    partial.rename(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
