"""Run the stand-in by itself: for the demo, and to look at it.

It makes one project with a bot and two people, notices pushes to its folder, and says on standard output, in one line
of JSON, how to reach it all; then it runs until it is stopped.
"""

import argparse
import json
import signal
import sys
import threading
from pathlib import Path

from tests.fakes.gitlab.model import MAINTAINER
from tests.fakes.gitlab.server import serve


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.gitlab", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--root", default="", help="a relative URL root like /gitlab")
    parser.add_argument("--folder", type=Path, help="for the repositories; default: a temporary one")
    parser.add_argument("--project", default="demo/shop", help="its path")
    parser.add_argument("--people", nargs="*", default=["alice", "bob"], help="user names of its developers")
    chosen = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with serve(port=chosen.port, root=chosen.root, folder=chosen.folder) as gitlab:
        project = gitlab.project(chosen.project, bot_level=MAINTAINER)
        people = [project.add_member(name) for name in chosen.people]
        known = {
            "url": gitlab.url,
            "project": {"id": project.id, "path": project.path, "folder": str(project.folder)},
            "tokens": {user.username: gitlab.token(user).value for user in (gitlab.admin, *people)}
            | {gitlab.bot.username: gitlab.bot_token},
        }
        sys.stdout.write(json.dumps(known) + "\n")
        sys.stdout.flush()
        while not stop.wait(0.2):
            gitlab.refresh()


if __name__ == "__main__":
    main()
