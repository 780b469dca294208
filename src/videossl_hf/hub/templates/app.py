"""The app of this Space; what it shows is made in `videossl_hf/space.py`."""

from pathlib import Path

from videossl_hf.space import STYLE, build_app

CHECKPOINTS = ["MODEL_ID"]  # ids on the Hub; add more to choose from

app = build_app(CHECKPOINTS, Path(__file__).parent / "gallery")

if __name__ == "__main__":
    app.launch(css=STYLE)
