"""What transformers' ``run_classification.py`` does with CSV files of texts and labels.

It takes the same arguments, has the same defaults (every text padded to 128 tokens, Trainer's own arguments) and leaves
the same ``all_results.json``. It stands in where the script is not at hand: transformers' package comes without it.
"""

from dataclasses import dataclass
from typing import Any

import pandas as pd
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)


@dataclass
class Options:
    """The script's own options that the benchmark uses."""

    model_name_or_path: str
    train_file: str  # columns sentence and label
    validation_file: str
    max_seq_length: int = 128
    pad_to_max_length: bool = True


def main() -> None:
    """Trains, saves, evaluates."""
    options, arguments = HfArgumentParser((Options, TrainingArguments)).parse_args_into_dataclasses()
    set_seed(arguments.seed)
    train, validation = (pd.read_csv(path, dtype=str) for path in (options.train_file, options.validation_file))
    labels = sorted(set(train["label"]) | set(validation["label"]))
    tokenizer = AutoTokenizer.from_pretrained(options.model_name_or_path)
    model = AutoModelForSequenceClassification.from_pretrained(options.model_name_or_path, num_labels=len(labels))
    model.config.label2id = {label: index for index, label in enumerate(labels)}
    model.config.id2label = dict(enumerate(labels))
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=encode(train, labels, tokenizer, options),
        eval_dataset=encode(validation, labels, tokenizer, options),
        compute_metrics=accuracy,
        processing_class=tokenizer,
        data_collator=default_data_collator if options.pad_to_max_length else DataCollatorWithPadding(tokenizer),
    )
    metrics = trainer.train().metrics
    trainer.save_model()
    trainer.save_metrics("train", metrics)
    trainer.save_metrics("eval", trainer.evaluate())


def encode(rows: pd.DataFrame, labels: list[str], tokenizer: Any, options: Options) -> list[dict[str, Any]]:
    """One dict per row: what the tokenizer gives, token_type_ids included, and the label's index."""
    padding = "max_length" if options.pad_to_max_length else False
    columns = dict(
        tokenizer(list(rows["sentence"]), padding=padding, max_length=options.max_seq_length, truncation=True)
    )
    columns["label"] = [labels.index(label) for label in rows["label"]]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """The share of right answers."""
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


if __name__ == "__main__":
    main()
