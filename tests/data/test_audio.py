"""Every file is built here as bytes: no test data, nothing on disk but what a test of paths puts there."""

import hashlib
import io
import json
import os
import time
import tracemalloc
import warnings
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile as sf

from harmonifuse_core.data.audio import SAMPLE_RATE, AudioError, AudioLimits, decode_waveform, load_audio
from harmonifuse_core.data.limits import plain_name

CORPORA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
TONE = 440.0


def tone(seconds: float = 2.0, rate: int = SAMPLE_RATE, hz: float = TONE, amplitude: float = 0.3) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def encode(samples: np.ndarray, rate: int = SAMPLE_RATE, container: str = "WAV", subtype: str | None = None) -> bytes:
    """Through libsndfile; samples (n,) or (n, channels)."""
    file = io.BytesIO()
    sf.write(file, samples, rate, format=container, subtype=subtype)
    return file.getvalue()


def encode_ffmpeg(samples: np.ndarray, rate: int, container: str, codec: str, *, picture: bool = False) -> bytes:
    """Through FFmpeg, mono; with `picture` a few video frames go along."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        video = out.add_stream("mpeg4", rate=10) if picture else None
        audio = out.add_stream(codec, rate=rate, layout="mono")
        if video:
            video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
            for _ in range(5):
                out.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
            out.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = rate
        if not audio.codec_context.is_open:
            audio.codec_context.open()
        size = audio.codec_context.frame_size or 1024
        resampler = av.AudioResampler(audio.format.name, "mono", rate, frame_size=size)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(audio.encode(piece))
        out.mux(audio.encode(None))
    return file.getvalue()


def build(kind: str, samples: np.ndarray | None = None, rate: int = SAMPLE_RATE) -> bytes:
    samples = tone(rate=rate) if samples is None else samples
    if kind in FFMPEG:
        container, codec = FFMPEG[kind]
        return encode_ffmpeg(samples, rate, container, codec)
    container, subtype = SNDFILE[kind]
    return encode(samples, rate, container, subtype)


SNDFILE = {
    "wav": ("WAV", "PCM_16"),
    "wav24": ("WAV", "PCM_24"),
    "wav8": ("WAV", "PCM_U8"),
    "wavfloat": ("WAV", "FLOAT"),
    "wavdouble": ("WAV", "DOUBLE"),
    "ulaw": ("WAV", "ULAW"),
    "rf64": ("RF64", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "sphere": ("NIST", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "vorbis": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
FFMPEG = {
    "m4a": ("ipod", "aac"),
    "mp4": ("mp4", "aac"),
    "mov": ("mov", "aac"),
    "aac": ("adts", "aac"),
    "mkv": ("matroska", "aac"),
    "mp3 in wav": ("wav", "libmp3lame"),
}


def loudest_hz(waveform: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(power.argmax() * SAMPLE_RATE / len(waveform))


def refusal(source, **options) -> str:
    with pytest.raises(AudioError) as caught:
        load_audio(source, **options)
    message = str(caught.value)
    assert ": " in message and "\n" not in message
    return message


@pytest.fixture(autouse=True)
def quiet(capfd):
    """No warning, no print and no line of a C library, whatever the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    written = capfd.readouterr()
    assert written.out == "" and written.err == ""


# ---- every format


@pytest.mark.parametrize("kind", [*SNDFILE, *FFMPEG])
def test_every_format_gives_the_same_tone(kind):
    clip = load_audio(build(kind))
    assert clip.waveform.dtype == np.float32 and clip.waveform.ndim == 1
    assert clip.seconds == pytest.approx(2.0, abs=0.13) and clip.seconds == len(clip.waveform) / SAMPLE_RATE
    assert (clip.source_rate, clip.source_channels) == (SAMPLE_RATE, 1)
    middle = clip.waveform[8000:24000]
    assert loudest_hz(middle) == pytest.approx(TONE, abs=2)
    assert np.abs(middle).max() == pytest.approx(0.3, abs=0.03)
    assert clip.warnings == ()


@pytest.mark.parametrize("kind", ["wav", "flac", "wavfloat", "aiff", "caf"])
def test_lossless_files_come_back_exactly(kind):
    samples = np.round(tone() * 32767).astype(np.int16)
    given = samples if kind != "wavfloat" else (samples / 32768).astype(np.float32)
    assert np.array_equal(load_audio(build(kind, given)).waveform, (samples / 32768).astype(np.float32))


def test_webm_from_a_browser():
    clip = load_audio(encode_ffmpeg(tone(rate=48000), 48000, "webm", "libopus"), name="recording.webm")
    assert (clip.source_rate, clip.name, clip.warnings) == (48000, "recording.webm", ())
    assert clip.seconds == pytest.approx(2, abs=0.05) and loudest_hz(clip.waveform) == pytest.approx(TONE, abs=2)


def test_the_sound_of_a_video_is_taken_and_a_silent_film_refused():
    film = encode_ffmpeg(tone(), SAMPLE_RATE, "mp4", "aac", picture=True)
    assert loudest_hz(load_audio(film).waveform) == pytest.approx(TONE, abs=2)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        video = out.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        out.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        out.mux(video.encode(None))
    assert "without an audio track" in refusal(file.getvalue())


@pytest.mark.parametrize("rate", [4000, 8000, 11025, 22050, 44100, 47999, 48000, 96000, 384_000])
def test_any_rate_comes_out_at_16_khz(rate):
    clip = load_audio(build("wav", rate=rate))
    assert abs(len(clip.waveform) - 2 * SAMPLE_RATE) <= 1 and clip.source_rate == rate
    assert loudest_hz(clip.waveform) == pytest.approx(TONE, abs=1)
    low = [warning for warning in clip.warnings if "no content above" in warning]
    assert bool(low) == (rate < SAMPLE_RATE)


def test_resampling_in_blocks_leaves_no_seam():
    clip = load_audio(encode(tone(5, 44100), 44100, subtype="FLOAT"))
    assert np.abs(clip.waveform - tone(5))[200:-200].max() < 1e-3


def test_resampling_lets_nothing_fold_back():
    with_ultrasound = tone(rate=48000) + tone(rate=48000, hz=11_000)
    clip = load_audio(encode(with_ultrasound, 48000, subtype="FLOAT"))
    assert np.abs(clip.waveform - tone())[500:-500].max() < 1e-3


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "opus", "m4a"])
def test_a_wrong_extension_is_read_by_content_and_named(kind):
    clip = load_audio(build(kind), name="talk.webm")
    assert len(clip.waveform) > 30_000
    assert len(clip.warnings) == 1 and "named .webm" in clip.warnings[0]


# ---- channels


def test_channels_are_averaged():
    stereo = np.stack([tone(), tone(hz=1000)], axis=1)
    clip = load_audio(encode(stereo, subtype="FLOAT"))
    assert np.allclose(clip.waveform, stereo.mean(axis=1), atol=1e-6) and clip.source_channels == 2


@pytest.mark.parametrize("kind", ["flac", "wav", "mp3"])
def test_antiphase_falls_back_to_the_loudest_channel(kind):
    clip = load_audio(build(kind, np.stack([-0.9 * tone(), tone()], axis=1)))
    assert np.abs(clip.waveform[4000:28000]).max() == pytest.approx(0.3, abs=0.02)
    assert len(clip.warnings) == 1 and "only channel 2" in clip.warnings[0]


def test_one_dead_channel_and_unrelated_channels_are_no_cancelling():
    rng = np.random.default_rng(0)
    unrelated = 0.1 * rng.standard_normal((32_000, 8)).astype("f4")
    for channels in (np.stack([tone(), 0 * tone()], axis=1), unrelated):
        clip = load_audio(encode(channels, subtype="FLOAT"))
        assert clip.warnings == () and np.allclose(clip.waveform, channels.mean(axis=1), atol=1e-6)


def test_eight_channels_at_192_khz_in_bounded_memory():
    samples = np.repeat(tone(6, 192_000)[:, None], 8, axis=1)  # 37 MB as floats
    data = encode(samples, 192_000, "FLAC")
    del samples
    tracemalloc.start()
    clip = load_audio(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert clip.source_channels == 8 and loudest_hz(clip.waveform) == pytest.approx(TONE, abs=1)
    assert peak < 8 * 2**20


# ---- refusals


def test_paths_that_are_no_file(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.wav")
    assert str(tmp_path / "none.wav")[-40:] in refusal(str(tmp_path / "none.wav"))
    assert "is a directory" in refusal(tmp_path)
    assert "not a regular file" in refusal("/dev/zero")
    assert "cannot be read" in refusal("a\0b.wav")
    assert "cannot be read" in refusal("x" * 5000)
    with pytest.raises(TypeError, match="int"):
        load_audio(3)


def test_empty_file(tmp_path):
    (tmp_path / "empty.wav").touch()
    assert "empty (0 bytes)" in refusal(tmp_path / "empty.wav")
    assert "empty (0 bytes)" in refusal(b"")


def test_a_sparse_gigabyte_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "huge.wav"
    with open(path, "wb") as file:
        file.write(build("wav"))
        file.truncate(2**30)
    begin = time.process_time()
    message = refusal(path)
    assert time.process_time() - begin < 0.1
    assert "1024 MB is too big, at most 25 MB" in message and "huge.wav" in message
    assert "too big" in refusal(bytes(101), limits=AudioLimits(max_bytes=100))


def with_flac_total(data: bytes, total: int) -> bytes:
    """The same FLAC stream whose header claims `total` samples (36 bits in STREAMINFO)."""
    changed = bytearray(data)
    changed[21] = (changed[21] & 0xF0) | (total >> 32)
    changed[22:26] = (total & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(changed)


def test_too_long_is_refused_by_the_header_before_decoding():
    tracemalloc.start()
    message = refusal(with_flac_total(build("flac"), 2**36 - 1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "4294967.3 s is too long, at most 600 s" in message and peak < 2**20


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "opus", "m4a", "aac", "mkv"])
def test_too_long_is_refused_in_every_format(kind):
    assert "is too long" in refusal(build(kind), limits=AudioLimits(max_seconds=1))


def test_too_long_is_refused_though_the_header_lies():
    lying = with_flac_total(build("flac"), 0)  # 0 means that the length is not stated
    assert load_audio(lying).seconds == pytest.approx(2)
    assert "more than 1 s is too long" in refusal(lying, limits=AudioLimits(max_seconds=1))


def test_too_short():
    assert "0.05 s is too short, at least 0.1 s" in refusal(encode(tone(0.05)))
    assert load_audio(encode(tone(0.1))).seconds == pytest.approx(0.1)
    assert load_audio(encode(tone(0.1, 44100), 44100)).seconds == pytest.approx(0.1)


@pytest.mark.parametrize("samples", [np.zeros(16_000), np.full(16_000, 0.25), tone(amplitude=9e-5)])
def test_silence_is_refused(samples):
    message = refusal(encode(samples, subtype="FLOAT"), name="s.wav")
    assert message.startswith("s.wav: no signal: ") and "silent" in message


def test_quiet_speech_passes_with_a_warning():
    clip = load_audio(encode(tone(amplitude=2e-4), subtype="FLOAT"))
    assert clip.warnings == ("very quiet: peak -74 dBFS",)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_that_are_no_numbers(value, channels):
    samples = np.repeat(tone()[:, None], channels, axis=1)
    samples[[20_000, 20_001, 30_000], channels - 1] = value
    message = refusal(encode(samples, subtype="FLOAT"))
    assert "3 samples are NaN or infinite, the first at sample 20000 (1.250 s)" in message


def test_samples_too_large_to_add():
    samples = np.full((16_000, 2), 3e38, np.float32) * np.sign(tone(1))[:, None]
    assert "NaN or infinite" in refusal(encode(samples, subtype="FLOAT"))


def strangers() -> dict[str, bytes]:
    random = np.random.default_rng(0).integers(0, 256, 50_000, dtype=np.uint8).tobytes()
    return {
        "random": b"\x07" + random,
        "random with an mp3 head": b"\xff\xfb\x90\x00" + random,
        "random with an aac head": b"\xff\xf1\x60\x40" + random,
        "random with an id3 head": b"ID3\x04\x00\x00\x00\x00\x00\x00" + random,
        "random in ogg": b"OggS" + random,
        "random in mp4": b"\0\0\0\x1cftyp" + random,
        "random in webm": b"\x1aE\xdf\xa3" + random,
        "text": b"hello world\n" * 100,
        "playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "png": b"\x89PNG\r\n\x1a\n" + bytes(200),
        "zeros": bytes(10_000),
        "one byte": b"R",
        "avi": b"RIFF\0\0\0\0AVI " + bytes(100),
        "header-only wav": build("wav")[:44],
        "half a wav header": build("wav")[:20],
        "header-only flac": build("flac")[:60],
        "header-only mp3": build("mp3")[:60],
        "start of an ogg": build("opus")[:100],
        "start of a webm": build("mkv")[:40],
        "m4a without its index": build("m4a")[:-2000],
    }


@pytest.mark.parametrize("name", strangers())
def test_what_is_no_audio_is_refused_in_words(name):
    message = refusal(strangers()[name], name="given.wav")
    assert message.startswith("given.wav: ")
    assert "give WAV, FLAC" in message or "damaged, cut off or empty" in message


def test_strangers_are_named():
    named = {name: refusal(data) for name, data in strangers().items() if name in ("png", "text", "playlist", "zeros")}
    assert "a PNG image" in named["png"] and "is text" in named["text"] and "is text" in named["playlist"]
    assert "00 00 00 00" in named["zeros"]


def test_limits_on_channels_and_rate():
    assert "33 channels, at most 32" in refusal(encode(np.repeat(tone()[:, None], 33, axis=1)))
    assert "sampled at 2000 Hz" in refusal(encode(tone(rate=2000), 2000))
    assert "sampled at 400000 Hz" in refusal(encode(tone(rate=400_000), 400_000))
    for wrong in ({"min_seconds": 700}, {"min_rate": 0}, {"max_bytes": 0}):
        with pytest.raises(ValueError, match="must be"):
            AudioLimits(**wrong)


@pytest.mark.parametrize("kind", ["wav", "flac", "vorbis", "opus", "mp3", "m4a", "aac", "mkv", "caf"])
def test_damage_anywhere_ends_in_a_clip_or_an_audio_error(kind):
    whole = build(kind)
    rng = np.random.default_rng(len(whole))
    outcomes = []
    for trial in range(40):
        data = bytearray(whole)
        for place in rng.integers(0, min(len(data), 200) if trial % 2 else len(data), rng.integers(1, 8)):
            data[place] = rng.integers(0, 256)
        data = bytes(data[: rng.integers(1, len(data))]) if trial % 4 == 0 else bytes(data)
        try:
            clip = load_audio(data)
        except AudioError as error:
            outcomes.append(str(error))
        else:
            assert np.isfinite(clip.waveform).all() and np.abs(clip.waveform).max() <= 1
    assert outcomes and all(text.startswith("audio: ") for text in outcomes)


# ---- warnings


@pytest.mark.parametrize("kind", ["wav", "aiff", "flac", "opus", "mp3", "mkv", "vorbis"])
def test_a_cut_off_file_gives_what_is_there(kind):
    samples = 0.1 * np.random.default_rng(0).standard_normal(10 * SAMPLE_RATE).astype("f4")
    whole = build(kind, samples)
    clip = load_audio(whole[: len(whole) * 6 // 10])
    assert 3 < clip.seconds < 8.5
    assert any("cut off" in warning or "left out" in warning for warning in clip.warnings)
    assert load_audio(whole).warnings == ()


def test_a_streamed_wav_of_unstated_size_is_no_damage():
    whole = build("wav")
    place = whole.index(b"data") + 4
    for size in (0xFFFFFFFF, 0x7FFFFFFF):
        clip = load_audio(whole[:place] + size.to_bytes(4, "little") + whole[place + 4 :])
        assert clip.seconds == pytest.approx(2, abs=0.01) and clip.warnings == ()


def test_a_chain_of_ogg_streams_is_read_to_its_end():
    assert load_audio(build("opus") * 2).seconds == pytest.approx(4, abs=0.05)


def test_an_id3_tag_with_a_picture_is_skipped():
    tag = b"ID3\x04\x00\x00" + bytes([0, 8, 0, 0]) + bytes(8 << 14)
    assert load_audio(tag + build("mp3")).seconds == pytest.approx(2, abs=0.1)


def test_clipping_and_overload_are_told():
    clipped = load_audio(encode(np.clip(4 * tone(), -1, 1)))
    assert "probably clipped" in clipped.warnings[0]
    loud = load_audio(encode(20 * tone(), subtype="FLOAT"))
    assert "peak 6" in loud.warnings[0] and np.abs(loud.waveform).max() == 1
    assert np.allclose(loud.waveform, tone() / 0.3, atol=1e-4)


# ---- names, files, digest


def test_the_digest_is_of_the_bytes_of_the_file(tmp_path):
    data = build("flac")
    (tmp_path / "a.flac").write_bytes(data)
    clip = load_audio(tmp_path / "a.flac")
    assert clip.sha256 == hashlib.sha256(data).hexdigest() == load_audio(data).sha256
    assert clip.name == "a.flac"


def test_names_are_harmless_text():
    message = refusal(b"", name="a\x1b[31m\n\u202eb\ud800.wav")
    assert message.startswith("a[31mb.wav: ")
    assert len(plain_name("x" * 500 + ".wav")) == 120 and plain_name("x" * 500 + ".wav").endswith(".wav")
    assert plain_name("\n") == "(unnamed)"


@pytest.mark.parametrize("kind", ["wav", "mp3", "m4a"])
def test_nothing_stays_open_or_behind(tmp_path, kind, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    path = tmp_path / "clip.bin"
    for data in (build(kind), build(kind)[:30]):
        path.write_bytes(data)
        before = len(os.listdir("/proc/self/fd"))
        for load in (load_audio, decode_waveform):
            try:
                load(path)
            except AudioError as error:
                assert "clip.bin" in str(error)
        assert len(os.listdir("/proc/self/fd")) == before and os.listdir(tmp_path) == ["clip.bin"]


# ---- the fast path


@pytest.mark.parametrize("kind", ["wav", "flac", "opus", "mp3", "m4a"])
@pytest.mark.parametrize("rate", [SAMPLE_RATE, 48000])
def test_the_fast_path_gives_the_same_samples(tmp_path, kind, rate):
    path = tmp_path / "clip"
    path.write_bytes(build(kind, rate=rate))
    assert np.array_equal(decode_waveform(path), load_audio(path).waveform)


def test_the_fast_path_takes_silence_and_refuses_damage(tmp_path):
    path = tmp_path / "clip.wav"
    path.write_bytes(encode(np.zeros(800)))
    assert decode_waveform(path).tolist() == [0.0] * 800
    path.write_bytes(build("wav")[:44])
    for wrong in (path, tmp_path / "none.wav"):
        with pytest.raises(AudioError, match=wrong.name):
            decode_waveform(str(wrong))


def test_the_fast_path_is_fast(tmp_path):
    path = tmp_path / "clip.opus"
    path.write_bytes(build("opus", tone(10)))
    decode_waveform(path)
    begin = time.process_time()
    for _ in range(5):
        decode_waveform(path)
    assert time.process_time() - begin < 5 * 10 / 20  # 20 times real time, on the slowest of machines


@pytest.mark.speech
@pytest.mark.skipif(not (CORPORA / "librispeech.jsonl").exists(), reason=f"no corpora in {CORPORA}")
def test_a_real_utterance_is_as_long_as_its_manifest_says():
    entry = json.loads((CORPORA / "librispeech.jsonl").read_text().splitlines()[0])
    path = CORPORA / entry["audio_filepath"]
    clip = load_audio(path)
    assert clip.seconds == pytest.approx(entry["duration"], abs=0.05)
    assert clip.source_rate == SAMPLE_RATE and clip.warnings == ()
    assert np.array_equal(decode_waveform(path), clip.waveform)
