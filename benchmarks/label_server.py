"""The server process of `label`: fills a workspace, says in one JSON line how to reach it, and serves until killed."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from trueup.store import Workspace, people
from trueup.web import create_app
from trueup.web.limits import Limit, Limits
from trueup.web.serve import Binding, Server

from .filling import check, fill

FREE = 8_000  # items left to judge: more than the judges get through
WITHOUT = Limit(10**9, 60.0)


def main(folder: str, size: str, judges: str, database: str, quality: str) -> None:
    count, now = int(size), time.time()
    ws = Workspace.create(Path(folder), database) if database else Workspace.create(Path(folder))

    def say(done: int) -> None:
        print(f"filling {count:,}: {done:,}", end="\r", file=sys.stderr, flush=True)

    collection = fill(ws, count, int(judges), FREE, say)
    print(f"filled {count:,}: {check(ws, collection)['judgements']:,} counted", file=sys.stderr)
    owner = people.add_person(ws.database, "owner of the bench", "owner", now)
    sessions = {each.id: people.new_session(ws.database, each.id, now, 86_400) for each in people.people(ws.database)}
    if quality:
        from trueup import asking

        began = time.time()
        asking.quality(ws, collection)
        print(f"quality figures of {count:,} took {time.time() - began:.1f} s", file=sys.stderr)
    limits = Limits(act=WITHOUT, look=WITHOUT)
    app = create_app(ws, limits=limits)
    server = Server(app, Binding())
    told = {
        "size": count, "collection": collection, "port": server.port, "cookie": f"trueup-{app.state.site.name}",
        "owner": sessions.pop(owner.id), "judges": list(sessions.values()),
    }  # fmt: skip
    print(json.dumps(told), flush=True)
    server.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
