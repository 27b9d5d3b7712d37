"""SpeechBrain CSV manifests (speechbrain.dataio.dataset; as its recipes' *_prepare.py write them).

    ID,duration,wav,spk_id,wrd
    1089-134686-0000,10.435,$data_root/test-clean/1089/134686/1089-134686-0000.flac,1089-134686,HE HOPED THERE ...

The raw folder is one .csv file, or a folder of them: train.csv, valid.csv (dev) and test.csv are the splits.
`$data_root` and `{data_root}` stand for `--audio-root`, else for the folder. `start` and `stop` are frames, as in the
VoxCeleb recipe: parts of recordings are left out and named, unless `--cut` asks for files of their own.
"""

from pathlib import Path

from harmonifuse_core.data.corpora.columns import OPTIONS, dataset_name, make_entry
from harmonifuse_core.data.corpora.entries import Corpus, Entries, LeftOut, Published, Reason
from harmonifuse_core.data.corpora.reading import number, table, visible

ROOTS = ("$data_root", "${data_root}", "{data_root}", "$data_folder", "{data_folder}")
USED = ("wav", "duration", "start", "stop", "wav_format", "wav_opts")


def entries(raw: Path, options) -> Entries:
    folder = raw if raw.is_dir() else raw.parent
    for listing in visible(raw.glob("*.csv")) if raw.is_dir() else [raw]:
        for row in table(listing, folder, ("ID", "wav")):
            if isinstance(row, LeftOut):
                yield row
                continue
            item, path = row["ID"] or row.where, row["wav"]
            if not path:
                yield LeftOut(item, Reason.MISSING, f"{row.where}: no path")
                continue
            frames = None
            if row["start"] or row["stop"]:
                frames = number(row["start"] or "0"), number(row["stop"])
                if None in frames:
                    yield LeftOut(item, Reason.DAMAGED, f"{row.where}: start {row['start']!r}, stop {row['stop']!r}")
                    continue
            base = Path(options["audio_root"] or folder)
            for placeholder in ROOTS:
                path = path.replace(placeholder, str(base.resolve()))
            yield make_entry(
                row.values, base / path, item, row.where, options, split=listing.stem, skip=USED,
                dataset=dataset_name(raw, options), frames=frames, claimed=None if frames else number(row["duration"]),
            )  # fmt: skip


CORPUS = Corpus(
    name="speechbrain_csv",
    title="SpeechBrain CSV",
    licence="that of your data",
    source="https://speechbrain.readthedocs.io",
    entries=entries,
    layout="*.csv with the columns ID and wav",
    published=Published(note="the data are your own"),
    needs_text=True,
    options=OPTIONS,
)
