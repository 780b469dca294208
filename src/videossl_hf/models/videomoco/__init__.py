"""VideoMoCo: momentum contrast for video with an adversarial generator that drops frames."""
