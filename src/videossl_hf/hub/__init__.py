"""Publishing and serving: model cards, push, pipelines."""
