"""Reports as HTML pages that work without a network."""

import html


def plotly_text(text: str) -> str:
    """A text as Plotly shows it, which reads a little HTML everywhere, links included.

    Quotes stay: Plotly would show what stands for them.
    """
    return html.escape(text, quote=False)
