"""The recording itself: waveform above, mel spectrogram below, on one time axis."""

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from app.figures.base import Figure, colour_bar, styled
from app.figures.margins import fitted
from app.palette import CIVIDIS, Theme, colour_scale

MOST_COLUMNS = 1200


def waveform_and_mel(low: np.ndarray, high: np.ndarray, mel: np.ndarray, seconds: float, theme: Theme) -> go.Figure:
    """`low`, `high` (P,): envelope; `mel` (M, T) in dB below the loudest cell."""
    figure = make_subplots(
        figure=Figure(), rows=2, cols=1, shared_xaxes=True, row_heights=[0.34, 0.66], vertical_spacing=0.04
    )
    times = np.linspace(0, seconds, len(low)) if len(low) else np.zeros(0)
    outline = {"color": theme.accent, "width": 1}
    figure.add_scatter(x=times, y=high, mode="lines", line=outline, hoverinfo="skip", row=1, col=1)
    figure.add_scatter(x=times, y=low, mode="lines", line=outline, fill="tonexty", hoverinfo="skip", row=1, col=1)
    mel = pooled_columns(mel, MOST_COLUMNS)
    columns = np.linspace(0, seconds, mel.shape[1])
    bar = colour_bar(theme, "dB") | {"len": 0.66, "y": 0, "yanchor": "bottom"}
    figure.add_heatmap(
        x=columns, y=np.arange(len(mel)), z=mel, zmin=-80, zmax=0, colorscale=colour_scale(CIVIDIS), colorbar=bar,
        hovertemplate="%{x:.2f} s, band %{y}: %{z:.0f} dB<extra></extra>", row=2, col=1,
    )  # fmt: skip
    styled(figure, theme, 270)
    peak = max(float(np.abs(np.concatenate([low, high])).max(initial=0.0)), 1e-3)
    figure.update_yaxes(range=[-peak, peak], showticklabels=False, showgrid=False, title_text="amplitude", row=1, col=1)
    figure.update_yaxes(title_text="mel band", showgrid=False, row=2, col=1)
    figure.update_xaxes(range=[0, seconds], showgrid=False)
    return fitted(figure.update_xaxes(title_text="seconds", row=2, col=1))


def pooled_columns(mel: np.ndarray, most: int) -> np.ndarray:
    """(M, T) to at most `most` columns, each the loudest of the frames that it stands for."""
    if mel.shape[1] <= most:
        return mel
    starts = np.arange(most) * mel.shape[1] // most
    return np.maximum.reduceat(mel, starts, axis=1)
