"""Files to records (`formats`), records to tokens (`chat`), rows in order (`batches`), rows for people (`show`).

Nothing here imports torch or transformers: `tokenizers` and `jinja2` are enough.
"""
