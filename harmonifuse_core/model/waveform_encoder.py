"""WavLM, HuBERT and wav2vec 2.0: the encoders that read waveforms."""

import torch
from torch import Tensor, nn
from transformers.masking_utils import create_bidirectional_mask

from harmonifuse_core.config import EncoderConfig
from harmonifuse_core.model.frontend import mask_spans, normalise_waveforms
from harmonifuse_core.model.speech_encoder import EncoderStates, SpeechEncoder


class WaveformSpeechEncoder(SpeechEncoder):
    """WavLM, HuBERT, wav2vec 2.0. Group-norm front ends (Base) see each clip alone, so that padding changes nothing."""

    def __init__(self, config: EncoderConfig, hf_config, body, normalise: bool):
        super().__init__(config, hf_config, body, body.encoder.layers)
        self.normalise = normalise
        if self.trainable_from >= 0:
            body.feature_extractor._freeze_parameters()

    def _encode(self, waveforms, lengths, augment):
        if self.normalise:
            waveforms = normalise_waveforms(waveforms, lengths)
        frames = self.count_frames(lengths)
        if int(frames.min()) < 1:
            raise ValueError(
                f"a clip of {int(lengths.min())} samples is shorter than one frame: drop it or pad it to 25 ms"
            )
        features = self._front_end(waveforms, lengths, frames).transpose(1, 2)  # (B, T, C)
        hidden = self.body.feature_projection(features)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        mask = torch.arange(hidden.shape[1], device=hidden.device) < frames[:, None]
        if augment:
            hidden = mask_spans(hidden.transpose(1, 2), frames, 2, augment.time_masks, augment.time_mask_frames // 2)
            hidden = hidden.transpose(1, 2)
        return EncoderStates(self._blocks(hidden * mask[..., None], mask), mask)

    def count_frames(self, lengths):
        return self.body._get_feat_extract_output_lengths(lengths).long()

    def _blocks(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """All states of (B, T, D), block by block: the body inside a transformers model returns the last one only."""
        encoder, wavlm = self.body.encoder, self.hf_config.model_type == "wavlm"
        hidden = hidden + encoder.pos_conv_embed(hidden)
        if not self.hf_config.do_stable_layer_norm:
            hidden = encoder.layer_norm(hidden)
        states, bias, keys = [encoder.dropout(hidden)], None, None
        if not bool(mask.all()):
            keys = mask if wavlm else create_bidirectional_mask(self.body.config, hidden, mask)
        for block in encoder.layers:
            if wavlm:  # block 0 makes the relative position bias that all blocks read
                hidden, bias = self._run(block, states[-1], keys, bias)
            else:
                hidden = self._run(block, states[-1], keys)
            states.append(hidden)
        return tuple(states)

    def _front_end(self, waveforms, lengths, frames):
        if self.hf_config.feat_extract_norm != "group" or len(waveforms) == 1:
            return self.body.feature_extractor(waveforms[:, : int(lengths.max())])
        clips = [self.body.feature_extractor(w[None, : int(n)])[0].T for w, n in zip(waveforms, lengths, strict=True)]
        return nn.utils.rnn.pad_sequence(clips, batch_first=True).transpose(1, 2)
