"""The configuration in use: read at start, reread on a reload, saved as last good."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from attrs import evolve, frozen
from twisted.logger import Logger

from sgpud.config.diff import diff
from sgpud.config.load import load, parse
from sgpud.config.problems import ConfigError, Problem
from sgpud.config.source import MAX_BYTES
from sgpud.config.values import Config, HttpSettings
from sgpud.core.planning.diff import changes
from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import Plan
from sgpud.core.sharing.limits import LimitError, check_size
from sgpud.core.sharing.rules import Sharing
from sgpud.core.status.view import ConfigurationView
from sgpud.core.text import several
from sgpud.files import read_regular
from sgpud.node.store import LAST_GOOD, StateDirectory

APPLIED, UNCHANGED, REFUSED = "applied", "unchanged", "refused"


@frozen
class ReloadResult:
    """What a reload did, or would do."""

    result: str
    """`applied` (or, for a preview, to be applied), `unchanged`, `refused`."""
    keys: tuple[str, ...] = ()
    """The changes of the configuration, one per line."""
    shares: tuple[str, ...] = ()
    """The changes of the plan, one per line."""
    problems: tuple[str, ...] = ()
    """Why it was refused."""
    warnings: tuple[str, ...] = ()


class PlanPreviewer(Protocol):
    """The part of the reconciler that a reload needs."""

    node: Node
    plan: Plan | None

    def update(self, **facts: Any) -> None:
        """Set facts."""

    def preview(self, **facts: Any) -> Plan | None:
        """The plan that would follow from these facts."""

    def reconcile(self) -> None:
        """Bring the plan up to date now."""


class ConfigReloader:
    """Holds the configuration in use, and replaces it only by a valid one."""

    _log = Logger()

    def __init__(
        self,
        file: Path,
        overrides: tuple[str, ...],
        plans: PlanPreviewer,
        store: StateDirectory,
        applied: Callable[[Config], None],
    ) -> None:
        """`overrides`: `section.key=VALUE` from the command line; `applied` gets each in use."""
        self.config = Config()
        self.view = ConfigurationView(str(file), "nothing")
        self._file = file
        self._overrides = overrides
        self._plans = plans
        self._store = store
        self._applied = applied
        self._keeps = False

    def http(self) -> HttpSettings:
        """The current settings of the HTTP server."""
        return self.config.http

    def start(self, *, strict: bool) -> None:
        """Read the file, or fall back to the last good configuration.

        ConfigError if the file is invalid and there is no last good one, or with `strict`.
        """
        try:
            config = load(self._file, self._overrides)
        except ConfigError as error:
            good = None if strict else self._last_good()
            if good is None:
                raise
            texts = tuple(str(problem) for problem in error.problems)
            self._log_refused(texts, "Running on the last good configuration")
            self._use(good, ConfigurationView(str(self._file), "last good", texts))
        else:
            self._use(config, ConfigurationView(str(self._file), "file"))

    def reload(self) -> ReloadResult:
        """Read the file and apply it, unless it is invalid: then everything stays as it was."""
        self._plans.reconcile()
        outcome, config = self._check()
        if config is None:
            self._log_refused(outcome.problems, "Keeping the current configuration")
            self.view = evolve(self.view, problems=outcome.problems)
            return outcome
        self._use(config, ConfigurationView(str(self._file), "file"))
        self._log.info(
            "Configuration {result}: {what}",
            result=outcome.result,
            what="; ".join((*outcome.keys, *outcome.shares)) or "no changes",
        )
        self._plans.reconcile()
        if self._keeps:
            self.keep()
        return outcome

    def catch_up(self) -> None:
        """Apply the file as it is now, if it has changed and is valid.

        A standby has read it long ago, and missed the reloads since.
        """
        outcome, config = self._check()
        if config is not None and config != self.config:
            self._log.info("Configuration reread: {keys}", keys="; ".join(outcome.keys))
            self._use(config, ConfigurationView(str(self._file), "file"))

    def preview(
        self, file: str = "", text: str = "", overrides: tuple[str, ...] = ()
    ) -> ReloadResult:
        """What a reload would do; or, with `file`, if the configuration were this text.

        `overrides`: `section.key=VALUE`, after those of the daemon's command line.
        """
        self._plans.reconcile()
        return self._check(file, text, overrides)[0]

    def keep(self) -> None:
        """Save the file as last good, if it is what is in use, now and after each reload.

        Only for the process that serves the node: two must not write the state directory.
        """
        self._keeps = True
        if self.view.in_use != "file":
            return
        try:
            content = read_regular(self._file, MAX_BYTES)
            if parse(content, str(self._file), self._overrides) != self.config:
                return  # changed since it was read: the next reload checks it
        except (OSError, ConfigError):
            return
        if content != self._store.read(LAST_GOOD):
            self._store.write(LAST_GOOD, content)

    def stop_keeping(self) -> None:
        """Save nothing until `keep` is called again."""
        self._keeps = False

    def _check(
        self, file: str = "", text: str = "", overrides: tuple[str, ...] = ()
    ) -> tuple[ReloadResult, Config | None]:
        overrides = (*self._overrides, *overrides)
        try:
            config = parse(text, file, overrides) if file else load(self._file, overrides)
            self._check_limits(config.sharing, file or str(self._file))
        except ConfigError as error:
            return ReloadResult(REFUSED, problems=tuple(map(str, error.problems))), None
        plan = self._plans.preview(sharing=config.sharing)
        shares = changes(self._plans.plan, plan) if plan else ()
        keys = diff(self.config, config)
        outcome = ReloadResult(
            APPLIED if keys or self.view.in_use != "file" else UNCHANGED,
            tuple(map(str, keys)),
            tuple(map(str, shares)),
            warnings=tuple(map(str, config.warnings)),
        )
        return outcome, config

    def _check_limits(self, sharing: Sharing, file: str) -> None:
        try:
            check_size(sharing, self._plans.node.gpus or ())
        except LimitError as error:
            problem = Problem(file, 0, error.key, str(error))
            raise ConfigError([problem]) from error

    def _last_good(self) -> Config | None:
        content = self._store.read(LAST_GOOD)
        if content is None:
            return None
        path = str(self._store.path(LAST_GOOD))
        try:
            return parse(content, path, self._overrides)
        except ConfigError as error:
            texts = tuple(str(problem) for problem in error.problems)
            self._log_refused(texts, "Cannot use the last good configuration")
            return None

    def _use(self, config: Config, view: ConfigurationView) -> None:
        self.config = config
        self.view = evolve(view, warnings=tuple(map(str, config.warnings)))
        for problem in config.warnings:
            self._log.warn("{problem}", problem=str(problem))
        self._plans.update(sharing=config.sharing)
        self._applied(config)

    def _log_refused(self, problems: tuple[str, ...], consequence: str) -> None:
        for problem in problems:
            self._log.error("{problem}", problem=problem)
        self._log.error(
            "{consequence}: {file} has {found}",
            consequence=consequence,
            file=str(self._file),
            found=several(len(problems), "problem"),
            count=len(problems),
        )
