"""VIMPAC: masked prediction of video tokens plus contrast, and the tokeniser that makes the tokens."""
