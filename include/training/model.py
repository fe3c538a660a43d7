"""Building, saving and loading classifiers: with the base model's own head, or with mean pooling.

A [CLS] classifier is transformers' own class and loads with plain ``AutoModelForSequenceClassification``. A mean-pooled
one has a model type of its own: where this module is not imported, plain loading stops with "does not recognize this
architecture" instead of answering with a pooler that was never trained. `load_classifier` loads both.
"""
# ruff: noqa: TID253 - models are all this module is about; import it inside functions

import logging
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
import transformers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_outputs import SequenceClassifierOutput

from include import objects
from include.training.errors import TrainingError
from include.training.layout import position_limit
from include.training.sources import pools_by_mean

logger = logging.getLogger(__name__)


class MeanPooledConfig(PreTrainedConfig):  # type: ignore[misc]
    """An encoder's config and the dropout of the head upon it."""

    model_type = "mean-pooled-classifier"
    sub_configs_defaults = {"encoder_config": SubConfigSpec(config_class=AutoConfig, model_type="bert")}

    encoder_config: dict | PreTrainedConfig | None = None  # type: ignore[type-arg]
    classifier_dropout: float = 0.1


class MeanPooledClassifier(PreTrainedModel):  # type: ignore[misc]
    """An encoder, the mean of its token vectors, and a linear layer."""

    config_class = MeanPooledConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    pools_packed = True

    def __init__(self, config: MeanPooledConfig) -> None:
        super().__init__(config)
        self.encoder = AutoModel.from_config(config.encoder_config, **_no_pooler(config.encoder_config))
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(self.encoder.config.hidden_size, config.num_labels)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The encoder's word embeddings."""
        embeddings: nn.Module = self.encoder.get_input_embeddings()
        return embeddings

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cu_seq_lens_q: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Logits (texts, labels) of a padded batch (texts, length) or a packed one (1, tokens)."""
        kwargs |= {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        hidden = self.encoder(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cu_seq_lens_q=cu_seq_lens_q,
            **kwargs,
        ).last_hidden_state.float()
        if cu_seq_lens_q is not None:
            pooled = _packed_mean(hidden[0], cu_seq_lens_q)
        else:
            mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return SequenceClassifierOutput(logits=self.classifier(self.dropout(pooled)))


def _packed_mean(hidden: torch.Tensor, bounds: torch.Tensor) -> torch.Tensor:
    """The mean over each text's tokens: (tokens, hidden) to (texts, hidden)."""
    lengths = bounds.diff().long()
    text = torch.repeat_interleave(torch.arange(len(lengths), device=hidden.device), lengths)
    return hidden.new_zeros(len(lengths), hidden.shape[1]).index_add(0, text, hidden[: len(text)]) / lengths[:, None]


def _no_pooler(config: Any) -> dict[str, bool]:
    """BERT's and RoBERTa's pooler would be a layer that is never used; DistilBERT has none and takes no such option."""
    encoder_class = AutoModel._model_mapping[type(config)]
    return {"add_pooling_layer": False} if "add_pooling_layer" in signature(encoder_class).parameters else {}


AutoConfig.register(MeanPooledConfig.model_type, MeanPooledConfig)
AutoModelForSequenceClassification.register(MeanPooledConfig, MeanPooledClassifier)


def quieten_transformers() -> None:
    """Keeps progress bars and load reports out of task logs; what matters comes as an exception."""
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()


def build_classifier(source: str, labels: list[str], name: str) -> tuple[Any, Any]:
    """A classifier to be trained, upon a base model or an earlier classifier.

    Args:
        source: Local folder, as ``fetch_base_model`` returns it.
        labels: Label names in the order of the logits.
        name: What the user called the model, for messages.

    Returns:
        The model (float32 weights) and its tokenizer.

    Raises:
        TrainingError: the model cannot be loaded.
    """
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)}}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        config = AutoConfig.from_pretrained(source)
        model = _build(source, config, names)
    except (OSError, ValueError) as error:
        raise TrainingError(f"base model {name} cannot be loaded from {source}: {_first_line(error)}") from error
    _require_vocabulary(model)
    return model, tokenizer


def _build(source: str, config: Any, names: dict[str, Any]) -> Any:
    if config.model_type != MeanPooledConfig.model_type and pools_by_mean(source):
        encoder = AutoModel.from_pretrained(source, dtype=torch.float32, **_no_pooler(config))
        dropout = getattr(config, "hidden_dropout_prob", getattr(config, "dropout", 0.1))
        mean_pooled = MeanPooledClassifier(MeanPooledConfig(encoder_config=config, classifier_dropout=dropout, **names))
        mean_pooled.encoder.load_state_dict(encoder.state_dict())
        return mean_pooled
    # Its head is kept only if it means the same labels: this is how training goes on from a champion.
    same_labels = dict(config.id2label) == names["id2label"]
    model = AutoModelForSequenceClassification.from_pretrained(
        source, dtype=torch.float32, ignore_mismatched_sizes=True, **names
    )
    if not same_labels:
        head = model.classifier.out_proj if hasattr(model.classifier, "out_proj") else model.classifier
        nn.init.normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)
    return model


def _require_vocabulary(model: Any) -> None:
    """Raises TrainingError for the few models that read bytes or characters."""
    try:
        known = isinstance(model.get_input_embeddings(), nn.Embedding)
    except (NotImplementedError, AttributeError):
        known = False
    if not known:
        raise TrainingError(
            f"{type(model).__name__} has no word vectors: choose a model with a vocabulary, as BERT has"
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@dataclass(frozen=True)
class Classifier:
    """A trained classifier, ready to answer."""

    model: Any
    tokenizer: Any
    labels: list[str]  # in the order of the logits
    max_length: int  # tokens; longer texts are cut, as they were in training


def load_classifier(uri: str) -> Classifier:
    """Loads a saved classifier, ours or any transformers sequence classifier, onto the CPU in float32.

    Args:
        uri: Local folder, URI of a folder, or Hugging Face id.

    Raises:
        FileNotFoundError: nothing lies at that URI.
        TrainingError: what lies there is no sequence classifier.
    """
    if "://" not in uri:
        return _load(uri)
    with objects.local(uri) as folder:
        return _load(str(folder))


def _load(source: str) -> Classifier:
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            source, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError) as error:
        raise TrainingError(f"no sequence classifier can be loaded from {source}: {_first_line(error)}") from error
    if loading["missing_keys"]:
        raise TrainingError(
            f"{source} is no trained sequence classifier: it lacks {sorted(loading['missing_keys'])[0]}"
        )
    _require_vocabulary(model)
    model.eval()
    labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
    return Classifier(model, tokenizer, labels, min(int(tokenizer.model_max_length), position_limit(model)))
