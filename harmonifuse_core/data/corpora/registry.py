"""The corpora there are, by name."""

from harmonifuse_core.data.corpora import (
    common_voice,
    crema_d,
    emilia,
    emo_db,
    hf_datasets,
    iemocap,
    kaldi,
    librispeech,
    msp_podcast,
    nemo,
    nemo_jsonl,
    ravdess,
    speechbrain_csv,
    speechocean762,
)  # fmt: skip
from harmonifuse_core.data.corpora.entries import Corpus

PUBLISHED = (
    librispeech, iemocap, emilia, ravdess, crema_d, emo_db, msp_podcast, common_voice, nemo, speechocean762,
)  # fmt: skip
IMPORTERS = (kaldi, speechbrain_csv, nemo_jsonl, hf_datasets)
CORPORA: dict[str, Corpus] = {module.CORPUS.name: module.CORPUS for module in PUBLISHED + IMPORTERS}


def listing() -> list[str]:
    """A table for `prepare --list`: name, title, published count, licence, source."""
    rows = [("name", "corpus", "published", "licence", "source")]
    rows += [(c.name, c.title, str(c.published), c.licence, c.source) for c in CORPORA.values()]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
