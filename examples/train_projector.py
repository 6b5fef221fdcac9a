"""Teach a language model to read ECG embeddings: a projector from ECG tokens to word embeddings, trained on a chat file.

In: a chat file of `create_dummy_dataset.py` or `create_mimic_ecg_inputs.py`, with the embeddings that it refers to. Out:
`projector.pt` and `losses.json`. Without --model, a tiny random language model and its tokenizer are made on the spot and trained
too, which shows in a minute on a CPU that the file is all a trainer needs. With --model, that model's weights stay as they are,
and the projector alone is trained, as in the first stage of LLaVA. Needs transformers: `pip install transformers`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ecgfounder.chat import ChatCollator

ECG_TOKEN = "<ecg>"
BATCHES_LOOKED_AT = 200
"""For the mean and standard deviation of ECG tokens."""
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("--chat_file", required=True, help="JSON or JSONL")
    add("--output_dir", required=True, type=Path)
    add(
        "--model", help="folder or name of a causal language model of transformers; a tiny random one if it is left out"
    )
    add("--epochs", type=int, default=30)
    add("--batch_size", type=int, default=4)
    add("--learning_rate", type=float, default=3e-3)
    add("--max_length", type=int, default=1024)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--seed", type=int, default=0)
    return parser.parse_args()


class Projector(nn.Module):
    """Two layers from an ECG token to a word embedding.

    Tokens of different ECGs have much in common, beside which their differences are small: each channel is standardised by its
    mean and standard deviation over the training file. Both are part of the state dict.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, tokens: Tensor, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", tokens.mean(dim=0))
        self.register_buffer("deviation", tokens.std(dim=0) + 1e-6)
        self.layers = nn.Sequential(nn.Linear(tokens.shape[1], width), nn.GELU(), nn.Linear(width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        projected: Tensor = self.layers((tokens - self.mean) / self.deviation)
        return projected


def main() -> None:
    told = arguments()
    torch.manual_seed(told.seed)
    samples = datasets.load_dataset("json", data_files=told.chat_file, split="train")
    model, tokenizer = tiny_model(samples) if told.model is None else given_model(told.model)
    collate = ChatCollator(tokenizer, ecg_token=ECG_TOKEN, max_length=told.max_length)
    shuffled = torch.Generator().manual_seed(told.seed)
    batches = DataLoader(samples, told.batch_size, shuffle=True, collate_fn=collate, generator=shuffled)
    sample = torch.cat([batch["ecg_tokens"][batch["ecg_mask"]] for batch in islice(batches, BATCHES_LOOKED_AT)])
    projector = Projector(sample, model.get_input_embeddings().embedding_dim).to(told.device)
    model.to(told.device)
    model.requires_grad_(told.model is None)
    trained = [*projector.parameters(), *(each for each in model.parameters() if each.requires_grad)]
    optimizer = torch.optim.AdamW(trained, lr=told.learning_rate)

    losses = []
    for epoch in range(1, told.epochs + 1):
        of_epoch = []
        for batch in batches:
            loss = loss_of(model, projector, batch, told.device)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            of_epoch.append(loss.item())
        losses.append(sum(of_epoch) / len(of_epoch))
        print(f"epoch {epoch}: loss {losses[-1]:.4f}", flush=True)

    # Are the ECGs read, or only the questions? With another sample's ECGs, the answers must be less likely.
    in_order = DataLoader(samples, told.batch_size, collate_fn=collate)
    with torch.inference_mode():
        own = mean(loss_of(model, projector, batch, told.device).item() for batch in in_order)
        others = mean(loss_of(model, projector, exchanged(batch), told.device).item() for batch in in_order)
    print(f"loss with each sample's own ECGs {own:.4f}, with another one's {others:.4f}")
    told.output_dir.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": projector.state_dict()}, told.output_dir / "projector.pt")
    result = {"epochs": losses, "own_ecgs": own, "other_ecgs": others, "samples": len(samples)}
    (told.output_dir / "losses.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def loss_of(model: Any, projector: Projector, batch: dict[str, Tensor], device: str) -> Tensor:
    """The loss of the answers, with the projected ECG tokens at their places in the text."""
    batch = {name: values.to(device) for name, values in batch.items()}
    words = model.get_input_embeddings()(batch["input_ids"])
    ecgs = projector(batch["ecg_tokens"][batch["ecg_mask"]]).to(words.dtype)
    words = words.masked_scatter(batch["ecg_places"][..., None], ecgs)
    loss: Tensor = model(
        inputs_embeds=words, attention_mask=batch["attention_mask"], labels=batch["labels"], use_cache=False
    ).loss
    return loss


def exchanged(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch with all ECG tokens moved on by half of them, so that samples have those of others."""
    tokens = batch["ecg_tokens"].clone()
    every = tokens[batch["ecg_mask"]]
    tokens[batch["ecg_mask"]] = every.roll(len(every) // 2, dims=0)
    return {**batch, "ecg_tokens": tokens}


def mean(values: Iterator[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


# --- language models -------------------------------------------------------------------------------------------------


def given_model(name: str) -> tuple[Any, Any]:
    """A model and its tokenizer, with a token for the places of ECGs."""
    tokenizer = AutoTokenizer.from_pretrained(name)
    model = AutoModelForCausalLM.from_pretrained(name)
    tokenizer.add_tokens([ECG_TOKEN], special_tokens=True)
    model.resize_token_embeddings(len(tokenizer))
    return model, tokenizer


def tiny_model(samples: Any) -> tuple[Any, Any]:
    """A random model of two layers, and a tokenizer made from the file's texts; nothing is downloaded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    special = ["<pad>", "<|end|>", "<|user|>", "<|assistant|>", ECG_TOKEN]
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts(samples), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<|end|>", additional_special_tokens=special[2:]
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=2048,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config), tokenizer


def texts(samples: Any) -> Iterator[str]:
    """All texts of a chat file, of either form."""
    for sample in samples:
        for message in sample["messages"] if "messages" in sample else sample.values():
            content = message["content"]
            yield content if isinstance(content, str) else " ".join(part["text"] for part in content)


if __name__ == "__main__":
    main()
