"""The composition root: builds the parts of the daemon and wires them, nothing else."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from sgpud.config.values import Config, LogSettings
from sgpud.core.node import Node, books_read
from sgpud.core.plan import Plan
from sgpud.core.status import Instance, Moment, View, view
from sgpud.gpus.hostwatch import HostWatch
from sgpud.gpus.source import source
from sgpud.kubelet.directory import CHECKPOINT
from sgpud.kubelet.holders import Holders, Wiring
from sgpud.kubelet.podresources import PodResources
from sgpud.kubelet.serving import Listener, Serving
from sgpud.kubelet.shelf import Shelf
from sgpud.node.follow import Follow
from sgpud.node.fullness import Fullness
from sgpud.node.gpu_facts import GpuFacts
from sgpud.node.keeper import Keeper
from sgpud.node.kept import Kept
from sgpud.node.known import Known
from sgpud.node.reload import Configuration, Outcome
from sgpud.node.store import Store
from sgpud.node.tally import Tally
from sgpud.notify import Hints
from sgpud.operate.announce import Announcer
from sgpud.operate.client import CONTROL
from sgpud.operate.control import Control
from sgpud.operate.logs import Log
from sgpud.operate.reading import Reading
from sgpud.operate.systemd import Systemd
from sgpud.operate.verbs import verbs
from sgpud.options import Options, Reactor

PARTS = ("keeper of facts", "reading of GPUs", "reading of holders", "watch over the directory")
TEMPORARY = 75
"""Exit status where only a new start helps (sysexits' EX_TEMPFAIL)."""


class Daemon:
    """One sgpud: its parts, how they hear of each other, and how they stop."""

    _log = Logger()

    def __init__(
        self,
        reactor: Reactor,
        options: Options,
        environment: Mapping[str, str],
        logs: Callable[[LogSettings], Log],
    ) -> None:
        """Read the configuration and build every part; ConfigError when there is none to run on.

        `logs` starts the logging, once it is known how.
        """
        self.exit_status = 0
        self._reactor, self._options = reactor, options
        self._systemd = Systemd(reactor, environment)
        self._logs: Log | None = None
        self._face = Announcer(reactor, self._systemd, lambda: self.view, self._is_ready)
        self._tally = Tally()
        self._shelf = Shelf(lambda: reactor.callFromThread(self._keeper.granted))
        self._keeper = Keeper(
            reactor, time.time, self._shelf, self._planned, self._turned, self._tally.granted
        )
        self._host = HostWatch(reactor, Path("/"), lambda host: self._keeper.learn(host=host))
        store = Store(options.state)
        self._kept, self._fullness = Kept(store), Fullness()
        self._configuration = Configuration(
            options.config, options.overrides, self._keeper, store, self._applied
        )
        self._configuration.start(strict=options.strict)
        config = self._configuration.config
        self._logs = logs(config.log)
        self._known = Known(store, self._keeper, reactor, simulated=bool(options.simulation))
        self._known.start()
        self._facts = GpuFacts(self._keeper, reactor, self._known.save, self._tally.xid, self._look)
        self._source, self._usage = source(reactor, options.simulation, self._facts)
        self._source.set_measure_every(config.sharing.measure_every)
        path = Path(config.kubelet.plugin_directory)
        self._holders = Holders(
            path / CHECKPOINT,
            reactor,
            PodResources(Path(config.kubelet.pod_resources), reactor),
            Wiring(
                learned=lambda books: self._keeper.change(partial(books_read, books=books)),
                waiting=lambda: bool(self._keeper.plan and self._keeper.plan.waiting),
                unconfirmed=lambda: self._keeper.unconfirmed,
                nudge=self._shelf.nudge,
            ),
        )
        self._serving = Serving(
            reactor,
            self._shelf,
            path,
            secrets.token_hex(4),
            self._tally,
            partial(Hints, reactor),
            Listener(
                taken=self._taken,
                served=self._settled,
                waits=self._waits,
                checkpoint=self._holders.changed,
                changed=self._face.changed,
                hopeless=self._leave,
            ),
        )
        self._follow = Follow(options.config, reactor, partial(Hints, reactor), self.reload)
        gpus = (self._source, self._facts)
        asked = verbs(lambda: self.view, self._configuration.preview, self.reload, *gpus)
        http = lambda: self._configuration.config.http  # noqa: E731 - a reload changes it
        self._reading = Reading(reactor, options.run, http, lambda: self.view)
        self._control = Control(reactor, options.run / CONTROL, asked)
        self._served = False
        self._stopped: Deferred[None] | None = None

    def start(self) -> None:
        """Start every part."""
        self._systemd.start()
        self._source.start()
        self._serving.start()
        self._holders.start()
        self._reading.start()
        if self._options.watch_config:
            self._follow.start()
        self._face.show()

    def stop(self) -> Deferred[None]:
        """Stop every part; nothing comes before the endpoints and then the lock."""
        if self._stopped is None:
            self._stopped = Deferred()
            self._log.info("Stopping")
            self._face.stop()
            self._systemd.stopping()
            ends: list[Deferred[Any]] = [
                self._serving.stop().addBoth(self._release),
                self._source.stop(),
                self._reading.stop(),
            ]
            DeferredList(ends).addCallback(self._end)
        return self._stopped

    def reload(self) -> Outcome:
        """Read the configuration again, as SIGHUP, `sgpud reload` and a changed file ask for."""
        self._systemd.reloading()
        outcome = self._configuration.reload()
        self._tally.reloaded(outcome.result)
        self._face.show()
        self._systemd.ready()
        return outcome

    @property
    def view(self) -> View:
        """What people see of the daemon as it is now."""
        return view(
            self._keeper.node,
            self._keeper.plan,
            self._serving.registrations,
            self._configuration.view,
            self._tally.counters(self._serving.registered, *self._source.calls.counted),
            self._instance,
            Moment(self._reactor.seconds(), time.time()),
            self._usage.latest,
        )

    @property
    def _instance(self) -> Instance:
        parts = (self._keeper, self._source, self._holders, self._serving)
        lives = zip(PARTS, map(attrgetter("alive"), parts), strict=True)
        return Instance(
            self._serving.state,
            str(self._serving.path),
            () if self._face.ready else ("it could not take over yet: its log says why",),
            tuple(name for name, alive in lives if not alive),
        )

    # What the parts tell. ------------------------------------------------------------------------

    def _applied(self, config: Config) -> None:
        self._keeper.learn(policy=config.health)
        if self._logs is not None:
            self._logs.set_level(config.log.level.value)
            self._source.set_measure_every(config.sharing.measure_every)
        self._look()

    def _planned(self, plan: Plan) -> None:
        self._serving.update(pool.resource for pool in plan.pools)
        self._tally.planned(plan)
        self._face.changed()

    def _turned(self, node: Node) -> None:
        self._facts.turned(node)
        self._fullness.look(node)
        if self._served:
            self._kept.keep(node.listing)

    def _look(self) -> None:
        delivery = self._configuration.config.sharing.delivery
        self._host.look_for(self._keeper.node.gpus or (), delivery)
        self._face.changed()

    def _taken(self) -> None:
        """The first time: what the kubelet knows by now is where our lists begin."""
        if not self._served:
            self._served = True
            self._configuration.catch_up()
            self._keeper.learn(listing=self._kept.listing(), registered_taken=False)
            self._known.take_over()
            self._holders.take_over()
            self._keeper.turn()

    def _settled(self) -> None:
        self._control.start()
        self._configuration.keep()

    def _waits(self) -> None:
        if not self._options.wait:
            self._leave("Not waiting for it (--no-wait)")

    def _leave(self, why: str) -> None:
        self._log.error("{why}; ending with status {status}", why=why, status=TEMPORARY)
        self.exit_status = TEMPORARY
        if self._stopped is None:
            self._reactor.stop()

    def _is_ready(self) -> bool:
        node = self._keeper.node
        return self._serving.ready(informed=node.gpus is not None or bool(node.probe_problem))

    def _release(self, result: object) -> object:
        self._control.stop()
        self._serving.release()
        return result

    def _end(self, _: object) -> None:
        for part in (self._keeper, self._holders, self._host, self._follow):
            part.stop()
        self._systemd.stop()
        if self._stopped is not None:
            self._stopped.callback(None)
