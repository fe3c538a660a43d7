"""Where in a transformers sequence classifier its parts are, whatever the family calls them."""

from typing import Any


def encoder_of(model: Any) -> Any:
    """The stack of layers whose output the model's own pooler or head reads; None if it is nowhere known."""
    base = model.base_model
    base = base.encoder if pools_itself(model) else base
    return getattr(base, "encoder", None) or getattr(base, "transformer", None)


def pools_itself(model: Any) -> bool:
    """Whether the model reads cu_seq_lens_q when it pools, as our mean-pooled one does."""
    return bool(getattr(model, "pools_packed", False))


def first_position(model: Any) -> int:
    """The position id of a text's first token: 0 for BERT, padding_idx + 1 for RoBERTa."""
    embeddings = next((module for name, module in model.named_modules() if name.endswith("embeddings")), None)
    padding = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    return 0 if padding is None else int(padding) + 1


def position_limit(model: Any) -> int:
    """The longest text in tokens that a model has positions for."""
    config = getattr(model.config, "encoder_config", model.config)
    return int(getattr(config, "max_position_embeddings", 1 << 30)) - first_position(model)
