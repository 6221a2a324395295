"""The composition root: builds the parts of the daemon and connects them, nothing else."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from sgpud.bridge import OneAtATime, Reactor, Timer, in_thread
from sgpud.composition.caps import cap_keeper, cap_orders
from sgpud.composition.cluster_link import ClusterLink
from sgpud.composition.fronts import FrontParts, PluginCalls, front, holders_of
from sgpud.composition.overuse import OveruseActions
from sgpud.config.values import Config, LogSettings
from sgpud.core.planning.holdings import CheckpointState
from sgpud.core.planning.node import Node, checkpoint_read
from sgpud.core.planning.plan import Plan
from sgpud.core.sharing.rules import InjectionMethod
from sgpud.core.status.view import InstanceView, NodeView, Timestamps, view
from sgpud.files import boot_id
from sgpud.folder_watcher import FolderWatcher
from sgpud.gpus.host import HostWatch
from sgpud.gpus.source import source
from sgpud.imports import LateImports
from sgpud.kubelet.cgroups import PodCgroups
from sgpud.kubelet.deviceplugin.publisher import SnapshotPublisher
from sgpud.kubelet.directory import CHECKPOINT, check_access
from sgpud.kubelet.holders import HoldersObserver, HolderTracker
from sgpud.kubelet.podresources import PodResourcesClient
from sgpud.kubelet.serving import Serving, ServingObserver
from sgpud.node.api_switch import ApiSwitch
from sgpud.node.config_file_watcher import ConfigFileWatcher
from sgpud.node.counters import EventCounters
from sgpud.node.gpu_facts import GpuFacts
from sgpud.node.gpu_state_store import GpuStateStore
from sgpud.node.listing_store import ListingStore
from sgpud.node.reconciler import Reconciler
from sgpud.node.reload import ConfigReloader, ReloadResult
from sgpud.node.served_api import ServedApi
from sgpud.node.store import StateDirectory
from sgpud.node.transition_log import FullTransitionLog, MethodLog
from sgpud.options import Options
from sgpud.serve.announcer import Announcer
from sgpud.serve.control.client import CONTROL
from sgpud.serve.control.server import ControlServer
from sgpud.serve.control.verbs import verbs
from sgpud.serve.http.page_data import PageData
from sgpud.serve.http.status_server import StatusServer
from sgpud.serve.logging.output import LogOutput
from sgpud.serve.systemd import Systemd

if TYPE_CHECKING:
    from sgpud.composition.dra import Dra
    from sgpud.core.explain.explain import Evidence

PARTS = ("reconciler", "GPU monitor", "holder tracker", "plugin directory watcher")
LATE = ("sgpud.core.explain.explain", "twisted.web.iweb", "sgpud.serve.http.site")
"""What answers people, and nothing that the kubelet asks."""
TEMPORARY = 75
"""Exit status when only a restart helps (EX_TEMPFAIL of sysexits.h)."""
FOLLOWED_AFTER = 0.02
"""Seconds in which a process that waited for the lock has got it."""
RELOADS_APART = 0.1
"""Seconds from the end of a requested reload to the next: signals may come faster than they end."""
SAVE_WITHIN = 0.3
"""Seconds for the last state to be written when stopping, before the lock is released."""


class Daemon:
    """The daemon: its parts, how they notify each other, and how they stop."""

    _log = Logger()

    def __init__(
        self,
        reactor: Reactor,
        options: Options,
        environment: Mapping[str, str],
        logs: Callable[[LogSettings], LogOutput],
    ) -> None:
        """Read the configuration and build every part; ConfigError if none is usable.

        `logs` starts logging, once the configuration is known.
        """
        self.exit_status = 0
        self._reactor, self._options = reactor, options
        self._systemd = Systemd(reactor, environment)
        self._logs: LogOutput | None = None
        self._dra: Dra | None = None
        self._announcer = Announcer(reactor, self._systemd, lambda: self.view, self._is_ready)
        self._counters = EventCounters()
        self._publisher = SnapshotPublisher(
            lambda: reactor.callFromThread(self._reconciler.granted)
        )
        self._reconciler = Reconciler(
            reactor,
            time.time,
            self._publisher,
            self._planned,
            self._reconciled,
            self._counters.granted,
            self._announcer.changed,
        )
        self._host = HostWatch(reactor, Path("/"), lambda host: self._reconciler.update(host=host))
        self._store = store = StateDirectory(
            options.state, reactor, partial(in_thread, reactor), self._announcer.changed
        )
        self._listing_store, self._full_log = ListingStore(store), FullTransitionLog()
        self._method_log = MethodLog()
        self._configuration = ConfigReloader(
            options.config, options.overrides, self._reconciler, store, self._applied
        )
        self._configuration.start(strict=options.strict)
        config = self._configuration.config
        path = Path(config.kubelet.plugin_directory)
        check_access(path)
        self._logs = logs(config.log)
        self._gpu_state_store = GpuStateStore(
            store, self._reconciler, reactor, fake=bool(options.fake_gpus), boot=boot_id()
        )
        self._gpu_state_store.start()
        self._facts = GpuFacts(
            self._reconciler, reactor, self._gpu_state_store.save, self._counters.xid, self._look
        )
        self._source, self._usage = source(reactor, options.fake_gpus, self._facts, options.probe)
        self._source.set_measure_every(config.sharing.measure_every)
        nonce = secrets.token_hex(4)
        pod_resources = PodResourcesClient(Path(config.kubelet.pod_resources), reactor)
        self._holders = HolderTracker(
            path / CHECKPOINT,
            reactor,
            pod_resources,
            HoldersObserver(
                on_checkpoint=self._checkpoint_read,
                waiting=lambda: bool(self._reconciler.plan and self._reconciler.plan.waiting),
                unconfirmed=lambda: self._reconciler.unconfirmed,
                resend_lists=self._publisher.resend,
            ),
            partial(in_thread, reactor),
        )
        self._cluster = ClusterLink(
            reactor,
            config,
            environment,
            self._holders,
            lambda spared: self._reconciler.update(spared=spared),
            self._announcer.changed,
        )
        self._overuse = OveruseActions(reactor, self._counters, self._cluster)
        self._late = LateImports(Timer(reactor), LATE, self._cluster.late)
        self._caps = cap_keeper(reactor, config, options.run, self._reconciler, lambda: self._dra)
        self._reconciler.update(capping=self._caps.facts)
        self._served_api = ServedApi(store, lambda api: holders_of(api, config, options.state))
        api = self._served_api.choose(config.kubelet.api, force=options.force)
        self._front, self._dra = front(
            api,
            FrontParts(
                reactor,
                config,
                environment,
                options.state,
                nonce,
                self._publisher,
                pod_resources,
                PluginCalls(self._counters, self._holders, self._late.soon, self._cluster),
                self._learned,
                self._announcer.changed,
                self._caps,
            ),
        )
        self._serving = Serving(
            reactor,
            self._front,
            path,
            nonce,
            partial(FolderWatcher, reactor),
            ServingObserver(
                on_acquired=self._took_over,
                on_served=self._serving_started,
                on_standby=self._waiting,
                on_checkpoint=self._holders.changed,
                on_kubelet=self._holders.kubelet_started,
                on_change=self._announcer.changed,
                on_fatal=self._exit,
            ),
        )
        self._pod_cgroups = PodCgroups(
            reactor, partial(FolderWatcher, reactor), self._holders.look, Path("/")
        )
        self._config_watcher = ConfigFileWatcher(
            options.config, reactor, partial(FolderWatcher, reactor), self.request_reload
        )
        self._reloads = OneAtATime(self._reload)
        self._switch = ApiSwitch(reactor, self._reconciler, self._served_api, self._exit)
        gpus, preview = (self._source, self._facts), self._configuration.preview
        commands = verbs(self._evidence, preview, self.reload, *gpus, self._switch.step)
        data = PageData(lambda: self.view, self._publisher.decisions.all, self._facts.history.view)
        self._status_server = StatusServer(reactor, options.run, self._configuration.http, data)
        self._control = ControlServer(reactor, options.run / CONTROL, commands)
        self._served = False
        self._known_dead: tuple[str, ...] = ()
        self._stopped: Deferred[None] | None = None

    def start(self) -> None:
        """Start every part."""
        for part in (self._source, self._serving, self._holders, self._pod_cgroups):
            part.start()
        self._systemd.start(self._lives)
        self._late.start()
        if not self._serving.locked:
            self._log.info(
                "Waiting for {directory}: the kubelet creates it", directory=self._serving.path
            )
            # Nobody else serves: a reload works, and a bad edit meanwhile is none for the next one.
            self._store.take_over()
            self._serving_started()
        self._status_server.start()
        if self._options.watch_config:
            self._config_watcher.start()
        self._announcer.show()

    def stop(self) -> Deferred[None]:
        """Stop every part: first the endpoints, then the lock, then the rest."""
        if self._stopped is None:
            self._stopped = Deferred()
            # Pods wait from here until the next one serves: what is not written yet is tried
            # again while the endpoints end, and whoever wants to know is told meanwhile.
            retired = maybeDeferred(self._serving.stop)
            self._store.flush()
            self._log.info("Stopping")
            self._announcer.stop()
            self._late.stop()
            self._systemd.stopping()
            self._reloads.stop()
            # Whatever one of them runs into, the others end, and the lock is released.
            ends: list[Deferred[Any]] = [
                retired.addBoth(self._save).addBoth(self._release).addBoth(self._hand_over),
                maybeDeferred(self._source.stop),
            ]
            DeferredList(ends).addCallback(self._end)
        return self._stopped

    def reload(self) -> ReloadResult:
        """Reload the configuration now, as `sgpud reload` asks."""
        self._systemd.reloading()
        try:
            outcome = self._configuration.reload()
            self._counters.reloaded(outcome.result)
            self._announcer.show()
        finally:
            self._systemd.ready()
        return outcome

    def request_reload(self) -> None:
        """Reload soon: on SIGHUP, or a change of the file. A burst of requests is two reloads."""
        self._reloads.request()

    def _reload(self) -> Deferred[None]:
        self.reload()
        pause: Deferred[None] = Deferred()
        self._reactor.callLater(RELOADS_APART, pause.callback, None)
        return pause

    @property
    def view(self) -> NodeView:
        """The daemon's current status."""
        return view(
            self._reconciler.node,
            self._reconciler.plan,
            self._front.registrations,
            self._configuration.view,
            self._counters.counters(self._front.registered, *self._source.calls.counted),
            self._instance,
            Timestamps(self._reactor.seconds(), time.time()),
            self._usage.latest,
        )

    def _evidence(self) -> Evidence:
        from sgpud.core.explain.explain import Evidence  # noqa: PLC0415 - one of LATE

        status, decisions = self.view, self._publisher.decisions.all()
        return Evidence(self._reconciler.node, self._reconciler.plan, status, decisions)

    @property
    def _instance(self) -> InstanceView:
        unready = () if self._announcer.ready else ("it could not take over yet, see its log",)
        noted = (self._served_api, self._status_server, self._overuse)
        return InstanceView(
            self._serving.state,
            str(self._serving.path),
            unready,
            self._dead,
            self._store.problem,
            tuple(filter(None, (one.problem for one in noted))),
            (self._dra.view,) if self._dra else (),
            self._cluster.view,
        )

    @property
    def _dead(self) -> tuple[str, ...]:
        """The parts that do not work although the daemon runs."""
        parts = (self._reconciler, self._source, self._holders, self._serving)
        states = zip(PARTS, map(attrgetter("alive"), parts), strict=True)
        dead = [name for name, alive in states if not alive]
        return (*dead, *(("ResourceSlice publisher",) if self._dra and self._dra.dead else ()))

    def _lives(self) -> bool:
        """Whether every part works: without that the watchdog of systemd is not fed."""
        dead = self._dead
        if dead != self._known_dead:
            self._known_dead = dead
            self._announcer.show()
            if dead:
                self._log.error(
                    "Failed: {parts}. If they do not recover, systemd's watchdog restarts sgpud",
                    parts=", ".join(dead),
                )
        return not dead

    # Callbacks of the parts. ---------------------------------------------------------------------

    def _applied(self, config: Config) -> None:
        self._reconciler.update(policy=config.health, limits=config.limits)
        if self._logs is not None:
            self._logs.set_level(config.log.level.value)
            self._source.set_measure_every(config.sharing.measure_every)
            self._cluster.configured(config)
        if self._dra is not None:
            self._dra.configured(config)
        self._look()

    def _checkpoint_read(self, checkpoint: CheckpointState) -> None:
        (self._dra.plugin_holders_read if self._dra else self._learned)(checkpoint)

    def _learned(self, checkpoint: CheckpointState) -> None:
        self._reconciler.change(partial(checkpoint_read, checkpoint=checkpoint))

    def _planned(self, plan: Plan) -> None:
        self._front.update(pool.resource for pool in plan.pools)
        self._counters.planned(plan)
        self._method_log.look(plan)
        self._announcer.changed()

    def _reconciled(self, node: Node) -> None:
        self._facts.reconciled(node)
        self._full_log.look(node)
        self._caps.order(cap_orders(node, self._reconciler.plan))
        self._cluster.reconciled(node)
        self._overuse.look(node)
        if self._dra is not None:
            self._dra.reconciled(node, self._reconciler.plan)
            self._cluster.evict(self._dra.evictions(node))
        elif self._served:
            self._listing_store.keep(node.listing)
            self._host.offer_caps(self._cap_devices(node))

    def _cap_devices(self, node: Node) -> frozenset[int]:
        """The memory caps that containers can be given as CDI devices, or have."""
        plan = self._reconciler.plan
        by_cdi = plan and plan.chosen and plan.chosen.method is InjectionMethod.CDI
        # A claim has a CDI device of its own, with its cap.
        return node.caps() if by_cdi and self._dra is None else node.held_caps()

    def _look(self) -> None:
        injection = self._configuration.config.sharing.injection
        self._host.look_for(self._reconciler.node.gpus or (), injection)
        self._announcer.changed()

    def _took_over(self) -> None:
        """Called with the lock held. The first time, start from what the kubelet knows by now."""
        if not self._served:
            self._served = True
            self._status_server.take_over()
            self._store.take_over()
            self._served_api.keep()
            self._configuration.catch_up()
            if self._dra is None:
                listing = self._listing_store.listing(self._reactor.seconds())
                self._reconciler.update(listing=listing, registered_taken=False)
            self._gpu_state_store.take_over()
            self._holders.take_over()
            self._reconciler.reconcile()
            self._cluster.start()
            self._caps.start()

    def _serving_started(self) -> None:
        self._control.start()
        self._configuration.keep()

    def _waiting(self) -> None:
        """Another process serves: it has the control socket, and the state directory."""
        self._stop_parts(self._control)
        self._configuration.stop_keeping()
        if not self._options.wait:
            self._exit("Not waiting for it (--no-wait)")

    def _exit(self, why: str) -> None:
        self._log.error("{why}; exiting with status {status}", why=why, status=TEMPORARY)
        self.exit_status = TEMPORARY
        if self._stopped is None:
            self._reactor.stop()

    def _is_ready(self) -> bool:
        node = self._reconciler.node
        return self._serving.ready(informed=node.gpus is not None or bool(node.probe_problem))

    def _save(self, _: object) -> Deferred[None]:
        """Whoever serves next reads what is written by then."""
        return self._store.flush().addTimeout(SAVE_WITHIN, cast("IReactorTime", self._reactor))

    def _release(self, result: object) -> object:
        self._stop_parts(self._store, self._control)
        self._serving.release()
        return result

    def _hand_over(self, _: object) -> Deferred[Any]:
        """Answer over HTTP until the next process does, if one has been waiting."""

        def end() -> Deferred[Any]:
            return self._status_server.stop(followed=self._serving.followed)

        return deferLater(cast("IReactorTime", self._reactor), FOLLOWED_AFTER, end)

    def _stop_parts(self, *parts: Any) -> None:
        for part in parts:
            try:
                part.stop()
            except Exception:  # noqa: PERF203, BLE001 - the next ones have to stop as well
                self._log.failure("Cannot stop {part}", part=type(part).__name__)

    def _end(self, _: object) -> None:
        parts = (self._reconciler, self._holders, self._host, self._config_watcher, self._systemd)
        self._stop_parts(
            *parts, self._pod_cgroups, self._switch, self._overuse, self._cluster, self._caps
        )
        if self._stopped is not None:
            self._stopped.callback(None)
