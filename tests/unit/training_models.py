"""Tiny models, tokenizers and jobs that the trainer's tests share."""

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AlbertConfig,
    BertConfig,
    BertModel,
    DebertaV2Config,
    DistilBertConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from include.training.job import Hyperparameters, Job

TOPICS = {
    "card": ["card", "lost", "stolen", "blocked", "pin"],
    "fee": ["fee", "charged", "cost", "expensive", "price"],
    "transfer": ["transfer", "money", "sent", "pending", "arrived"],
}
FILLERS = ["my", "the", "why", "is", "was", "please", "help", "with", "this", "today", "a", "i", "not", "have"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [*SPECIAL, *(word for words in TOPICS.values() for word in words), *FILLERS]

SIZES: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}
DISTILBERT: dict[str, Any] = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 40}
CONFIGS = {
    "bert": BertConfig(**SIZES),
    "distilbert": DistilBertConfig(vocab_size=len(VOCABULARY), **DISTILBERT),
    "roberta": RobertaConfig(**SIZES, pad_token_id=1),
    "albert": AlbertConfig(**SIZES, embedding_size=16),
    "deberta": DebertaV2Config(**SIZES, relative_attention=True, position_biased_input=False, pos_att_type=["p2c"]),
}


def save_tokenizer(folder: Path) -> None:
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=words, **names).save_pretrained(folder)


def save_bert(folder: Path, *, mean_pooling: bool) -> Path:
    """A random BERT with a tokenizer, in the layout of a base model."""
    torch.manual_seed(0)
    BertModel(CONFIGS["bert"]).save_pretrained(folder)
    save_tokenizer(folder)
    if mean_pooling:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    return folder


def rows(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts of 3 to 12 words about one of three topics."""
    dice = random.Random(seed)
    found = []
    for index in range(count):
        label = sorted(TOPICS)[index % len(TOPICS)]
        words = [*dice.sample(FILLERS, dice.randint(2, 10)), *dice.sample(TOPICS[label], dice.randint(1, 2))]
        dice.shuffle(words)
        found.append((" ".join(words), label))
    return found


def save_dataset(folder: Path, train: list[tuple[str, str]], validation: list[tuple[str, str]]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for name, split in (("train", train), ("validation", validation)):
        texts, labels = zip(*split, strict=True) if split else ((), ())
        table = pa.table({"text": pa.array(texts, pa.string()), "label": pa.array(labels, pa.string())})
        pq.write_table(table, folder / f"{name}.parquet")
    return f"file://{folder}"


def job(dataset_uri: str, base_model: Path | str, tracking_uri: str, **tunables: Any) -> Job:
    chosen = {"epochs": 3, "learning_rate": 3e-3, "batch_size": 8, "max_length": 16, "seed": 7} | tunables
    return Job(
        dataset_uri=dataset_uri,
        model_name="tiny",
        base_model=str(base_model),
        hyperparameters=Hyperparameters(**chosen),
        mlflow_tracking_uri=tracking_uri,
        mlflow_experiment="tests",
    )
