"""Hugging Face `datasets` folders, read with pyarrow alone.

    saved with save_to_disk:  dataset_dict.json   {"splits": ["train", "test"]}
                              train/state.json    {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], ...}
                              train/dataset_info.json, train/data-00000-of-00001.arrow      (Arrow streams)
    from the Hub:             data/train-00000-of-00002.parquet, or default/train/0000.parquet

The audio column is the one whose feature is Audio (a struct of `bytes` and `path`). Its bytes are written beside the
manifest, in OUT.audio/, as they are, with nothing decoded; where there are no bytes, `path` must lie in the folder or
in `--audio-root`. Integers of a ClassLabel become their names. Ids are those of the data, else split and row number.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from harmonifuse_core.data.corpora.columns import OPTIONS, dataset_name, make_entry, split_name
from harmonifuse_core.data.corpora.entries import Corpus, CorpusError, Entries, LeftOut, Published, Reason
from harmonifuse_core.data.corpora.reading import inside, shown, visible

ROWS = 16  # rows in memory at a time: some hold a minute of uncompressed sound
SHARD = re.compile(r"(.+?)-\d{5}-of-\d{5}(-[0-9a-f]+)?")


def entries(raw: Path, options) -> Entries:
    import pyarrow as pa

    for path, split in _files(raw):
        where = shown(path, raw if raw.is_dir() else raw.parent)
        if not inside(path, raw if raw.is_dir() else raw.parent):
            yield LeftOut(where, Reason.OUTSIDE, "a link out of the raw folder: put the file itself there")
            continue
        count = 0
        try:
            for columns, features in _batches(path):
                audio = _audio_column(columns, features, where)
                for values in columns.to_pylist():
                    count += 1
                    yield _record(
                        values, audio, features, f"{where}, row {count}", f"{split}-{count}", split, raw, options
                    )
        except (pa.ArrowException, OSError) as error:
            yield LeftOut(where, Reason.DAMAGED, f"behind row {count}: {str(error).splitlines()[0]}")


def _files(raw: Path) -> Iterator[tuple[Path, str]]:
    """Data files in order, with their splits."""
    if raw.is_file():
        yield raw, _split_of(raw)
        return
    states = visible(raw.glob("state.json")) + visible(raw.glob("*/state.json"))
    for state in states:
        try:
            content = json.loads(state.read_text(encoding="utf-8"))
            names = [str(item["filename"]) for item in content["_data_files"]]
        except (ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"{state} is damaged ({error!r}): save the dataset again") from None
        if content.get("_indices_data_files") or content.get("_indices_files"):
            raise CorpusError(f"{state} keeps a selection of rows: call flatten_indices() and save the dataset again")
        split = split_name(state.parent.name if state.parent != raw else str(content.get("_split") or ""))
        yield from ((state.parent / name, split) for name in names)
    if not states:
        yield from ((path, _split_of(path)) for path in visible(raw.rglob("*.parquet")))


def _split_of(path: Path) -> str:
    shard = SHARD.fullmatch(path.stem)
    if shard:
        return split_name(shard[1])
    return split_name(path.parent.name if path.stem.isdigit() else path.stem)


def _batches(path: Path):
    """Record batches of a file with the `datasets` features, where the file states them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            features = _features(file.schema_arrow)
            for batch in file.iter_batches(ROWS):
                yield batch, features
        return
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
        features = _features(stream.schema)
        for batch in stream:
            for begin in range(0, batch.num_rows, ROWS):
                yield batch.slice(begin, ROWS), features


def _features(schema) -> dict:
    try:
        return json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    except (TypeError, KeyError, ValueError):
        return {}


def _audio_column(batch, features: dict, where: str) -> str:
    import pyarrow as pa

    def holds_audio(name: str) -> bool:
        feature, kind = features.get(name), batch.schema.field(name).type
        if isinstance(feature, dict) and "_type" in feature:
            return feature["_type"] == "Audio"
        return pa.types.is_struct(kind) and {"bytes", "path"} <= {kind.field(i).name for i in range(kind.num_fields)}

    found = [name for name in batch.schema.names if holds_audio(name)]
    if len(found) != 1:
        raise CorpusError(
            f"{where} has {len(found)} audio columns {found}, one is needed; "
            f"its columns are: {', '.join(batch.schema.names)}"
        )
    return found[0]


def _record(values: dict, column: str, features: dict, where: str, item: str, split: str, raw: Path, options):
    audio = values.pop(column)
    audio = audio if isinstance(audio, dict) else {"path": audio}  # saved before the struct came: a bare path
    for name, value in values.items():
        feature = features.get(name)
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and isinstance(value, int):
            names = feature.get("names", [])
            values[name] = names[value] if 0 <= value < len(names) else ""
    content, path = audio.get("bytes"), audio.get("path")
    if not content and not path:
        return LeftOut(item, Reason.MISSING, f"{where}: neither bytes nor path")
    folder = Path(options["audio_root"] or (raw if raw.is_dir() else raw.parent))
    source = content if content else folder / path
    return make_entry(values, source, item, where, options, split=split, dataset=dataset_name(raw, options))


CORPUS = Corpus(
    name="hf_datasets",
    title="Hugging Face datasets folder",
    licence="that of your data",
    source="https://huggingface.co/docs/datasets",
    entries=entries,
    layout="state.json and *.arrow (save_to_disk), or *.parquet files",
    published=Published(note="the data are your own"),
    needs_text=True,
    options=OPTIONS,
)
