"""The supervisor's loop: a frame in, a job, a clean container, a frame out."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, NoReturn

from worker import files, memory, processes
from worker.child import Order
from worker.framing import FrameError, Frames, pack
from worker.jobs import HostGone, Interpreter, Watch
from worker.output import HeadTail
from worker.parent import PRELOADED, Parent, ParentLost
from worker.requests import LANGUAGES, Refused, Run, parse
from worker.verdicts import judge

VERSION_FILE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "VERSION")


class Host:
    """The host's end of stdin and stdout."""

    def __init__(self) -> None:
        self._frames = Frames()

    def fileno(self) -> int:
        return 0

    def read(self) -> None:
        """Take what has come. Raises HostGone at the end of the stream, FrameError."""
        data = os.read(0, 2**20)
        if not data:
            raise HostGone
        self._frames.feed(data)

    def next(self) -> dict[str, Any]:
        """The next request. Raises HostGone, FrameError."""
        while (message := self._frames.take()) is None:
            self.read()
        return message

    def send(self, message: dict[str, Any]) -> None:
        data = memoryview(pack(message))
        while data:
            data = data[os.write(1, data) :]


class Supervisor:
    """Answers the host's requests; at most one job, and at most one session, at a time."""

    def __init__(self) -> None:
        processes.hide()
        self._user = processes.pick_user()
        self._parent = Parent(self._user, PRELOADED)
        self._parent.wait()
        self._light = Parent(self._user, ())  # nobody waits for it: until it is ready, the other one serves
        self._own = frozenset((os.getpid(), self._light.pid, self._parent.pid))
        processes.ignore_signals()
        self._wake = processes.wakeups()
        self._host = Host()
        self._session: Interpreter | None = None
        self._lost = False

    def loop(self) -> NoReturn:
        """Never returns. Raises HostGone, FrameError, ParentLost."""
        while True:
            message = self._host.next()
            reply = self._answer(message)
            self._host.send({"nonce": message.get("nonce"), **reply})

    def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        op = message.get("op")
        if op == "hello":
            languages, modules = list(LANGUAGES), self._parent.modules
            return {"status": "ready", "version": version(), "languages": languages, "modules": modules}
        if op == "end":
            return {"status": "ended", "clean": self._end()}
        if op != "run":
            raise FrameError(f"a request for {op!r:.40}")
        try:
            run = parse(message)
        except Refused as refused:
            return {"status": refused.status, "error": refused.error, "clean": True}
        except (KeyError, TypeError, ValueError) as error:
            raise FrameError(f"a request that is not one: {error!r:.200}") from error
        return self._cell(run) if run.session else self._script(run)

    def _script(self, run: Run) -> dict[str, Any]:
        if self._session is not None or self._lost:
            return {"status": "error", "error": "a session is open in this container", "clean": True}
        try:
            light = not run.may_use(PRELOADED) and self._light.ready()
            parent = self._light if light else self._parent
            interpreter = Interpreter.start(parent, Order(False, run.memory, run.seconds))
        except OSError as error:
            return {"status": "killed", "error": f"no process could be started: {error}", "clean": False}
        try:
            reply = self._follow(interpreter, run)
        finally:
            interpreter.close()
        reply["clean"] = reply["clean"] and files.wipe(self._user)
        return reply

    def _cell(self, run: Run) -> dict[str, Any]:
        if self._lost:
            return {"status": "lost", "clean": True}
        if self._session is None:
            try:
                self._session = Interpreter.start(self._parent, Order(True, run.memory, run.seconds))
            except OSError as error:
                self._lost = True
                return {"status": "killed", "error": f"no process could be started: {error}", "lost": True}
        processes.signal_all(self._user, signal.SIGCONT)
        reply = self._follow(self._session, run)
        if reply.get("lost"):
            self._session.close()
            self._session, self._lost = None, True
        return reply

    def _follow(self, interpreter: Interpreter, run: Run) -> dict[str, Any]:
        output = HeadTail(run.output)
        watch = Watch(interpreter, self._host, self._wake, self._own, output)
        ooms = memory.oom_kills()
        order = {"code": run.code, "language": run.language, "memory": run.memory, "files": run.files}
        ended = watch.run(order, run, memory.used())
        goes_on = ended.cause == "said"
        if goes_on:  # what a session leaves running has its turn with the next cell
            processes.signal_all(self._user, signal.SIGSTOP)
            clean = True
        else:
            clean = self._end_processes(interpreter)
            watch.drain()
        verdict = judge(
            ended, seconds=run.seconds, memory=run.memory, flood=output.flood,
            ooms=memory.oom_kills() - ooms, cell=run.session,
        )  # fmt: skip
        kept = files.keep(self._user, run.keep)
        printed = output.printed()
        reply: dict[str, Any] = {
            "status": verdict.status, "stdout": printed.text, "error": verdict.error,
            "seconds": round(ended.seconds, 6), "total": printed.total, "truncated": printed.truncated,
            "files": kept.files, "refused": kept.refused, "clean": clean,
        }  # fmt: skip
        if run.session and not goes_on:
            reply["lost"] = True
        return reply

    def _end_processes(self, interpreter: Interpreter) -> bool:
        clean = processes.end_all(self._user, self._own, self._wake)
        while not interpreter.ended and clean:
            message = interpreter.parent.hear()
            interpreter.ended = message.get("pid") == interpreter.pid
        return clean

    def _end(self) -> bool:
        """End the session, if there is one, and leave the container as it was."""
        clean = processes.end_all(self._user, self._own, self._wake)
        if self._session is not None:
            clean = clean and self._end_processes(self._session)
            self._session.close()
        self._session, self._lost = None, False
        return clean and files.wipe(self._user)


def version() -> str:
    """The image's version, written into it when it is built."""
    try:
        with open(VERSION_FILE, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def serve() -> NoReturn:
    """Serve until the host goes; then everything in the container ends with PID 1."""
    code = 0
    try:
        Supervisor().loop()
    except HostGone:
        pass
    except (FrameError, ParentLost) as error:
        print(f"supervisor: {error}", file=sys.stderr, flush=True)
        code = 2
    except BaseException as error:
        print(f"supervisor: {error!r}", file=sys.stderr, flush=True)
        code = 3
    os._exit(code)
