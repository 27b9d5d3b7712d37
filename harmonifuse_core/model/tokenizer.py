"""Text <-> token ids, in one file `tokenizer.json` that a run carries with it."""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

START_OF_PROMPT, START_OF_TEXT, NO_TIMESTAMPS = "<|startofprev|>", "<|startoftranscript|>", "<|notimestamps|>"
END = "<|endoftext|>"


class TextTokenizer:
    """A `tokenizers.Tokenizer` with the special tokens that both LMs need.

    Args:
        backend: a tokenizer whose vocabulary may or may not hold Whisper's special tokens.
        language: language token for multilingual Whisper checkpoints, e.g. `en`; empty where the model has none.
    """

    def __init__(self, backend: Tokenizer, language: str = ""):
        self.backend, self.language = backend, language
        self.backend.no_truncation()
        self.backend.no_padding()
        end = next((i for t in (END, "</s>", "<eos>", "<|im_end|>") if (i := backend.token_to_id(t)) is not None), None)
        if end is None:
            raise ValueError(f"the tokenizer has no end-of-text token; add {END!r} to it")
        self.end = end
        self.size = max(backend.get_vocab(with_added_tokens=True).values()) + 1

    def __len__(self):
        """Ids run from 0 to below this; an LM's output may be wider (Whisper's timestamps, padding of the matrix)."""
        return self.size

    def encode(self, text: str) -> list[int]:
        """Ids of `text` with the leading space that Whisper and GPT-2 style vocabularies expect; no special tokens."""
        return self.backend.encode(" " + text.strip(), add_special_tokens=False).ids if text.strip() else []

    def decode(self, ids: list[int]) -> str:
        return self.backend.decode(list(ids), skip_special_tokens=True).strip()

    def piece(self, token: int) -> str:
        """The text of one token, for labels in charts."""
        return self.backend.decode([token], skip_special_tokens=False) or self.backend.id_to_token(token) or ""

    def special(self, token: str) -> int | None:
        return self.backend.token_to_id(token)

    def prompt_ids(self, prompt: str) -> list[int]:
        """The prompt behind `<|startofprev|>` (where the vocabulary has it) and before the start-of-text tokens."""
        start, text = self.special(START_OF_PROMPT), self.special(START_OF_TEXT)
        ids = ([start] if start is not None else []) + self.encode(prompt) + ([text] if text is not None else [])
        if self.language:
            ids += [i for t in (f"<|{self.language}|>", "<|transcribe|>") if (i := self.special(t)) is not None]
        if text is not None and (quiet := self.special(NO_TIMESTAMPS)) is not None:
            ids.append(quiet)
        return ids or [self.end]

    def special_ids(self) -> list[int]:
        """Ids that never belong to a transcript, the end-of-text token excepted."""
        added = self.backend.get_added_tokens_decoder()
        return sorted(i for i, token in added.items() if token.special and i != self.end)

    def save(self, folder: Path):
        self.backend.save(str(Path(folder) / "tokenizer.json"))


def byte_tokenizer() -> TextTokenizer:
    """UTF-8 bytes as tokens: needs no file and no training; every text has an encoding."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in (END, START_OF_PROMPT, START_OF_TEXT, NO_TIMESTAMPS)]
    )
    return TextTokenizer(backend)


def load_tokenizer(name: str, language: str = "") -> TextTokenizer:
    """`bytes`, a folder with tokenizer.json, such a file, or a hub name."""
    if name == "bytes":
        return byte_tokenizer()
    path = Path(name)
    if path.is_dir():
        path = path / "tokenizer.json"
    if path.is_file():
        return TextTokenizer(Tokenizer.from_file(str(path)), language)
    try:
        from transformers import AutoTokenizer

        return TextTokenizer(AutoTokenizer.from_pretrained(name).backend_tokenizer, language)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"lm.tokenizer {name!r} is neither `bytes`, a folder with tokenizer.json, nor reachable on the hub: {error}"
        ) from error
