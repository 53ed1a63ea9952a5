"""The beginnings of reviews as prompts: `python prepare.py REVIEWS.parquet ROWS.jsonl`.

IMDB has a text and a label. A row here has the first words as `prompt`, the next ones as `completion`, and the label
(1 for a good review, 0 for a bad one) where there is one. So it is a prompt, a demonstration and a judged completion.
The rows are shuffled: the file has all bad reviews first.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator

from pyarrow.parquet import ParquetFile

PROMPT, COMPLETION = 8, 40  # words


def rows(path: str) -> Iterator[dict[str, object]]:
    for batch in ParquetFile(path).iter_batches():
        for review in batch.to_pylist():
            words = review["text"].replace("<br />", " ").split()
            row = {"prompt": " ".join(words[:PROMPT]), "completion": " ".join(words[PROMPT : PROMPT + COMPLETION])}
            yield row if review["label"] < 0 else {**row, "label": review["label"]}


def main(source: str, target: str) -> None:
    shuffled = list(rows(source))
    random.Random(0).shuffle(shuffled)
    with open(target, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in shuffled)


if __name__ == "__main__":
    main(*sys.argv[1:])
