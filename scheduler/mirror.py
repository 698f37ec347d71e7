"""What the leader knows: the policy's engine, kept level with the database.

The database is the truth and this an index of it. It is fed by what other transactions leave in
the feed and by the leader's own moves; a sweep compares and repairs. Lines are held as windows of
their first jobs, so that memory follows the number of owners who wait, not that of jobs.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy.orm import Session

from scheduler import accounting
from scheduler.models import PolicyVersion
from scheduler.policy.admission import Decision
from scheduler.policy.curve import Queued
from scheduler.policy.durations import Durations, Key, Learned
from scheduler.policy.engine import Engine
from scheduler.policy.experience import Scorer
from scheduler.policy.meters import effective_weight
from scheduler.policy.parameters import RUN_AHEAD
from scheduler.policy.rules import Rules, rules_of
from scheduler.snapshot import Running, Snapshot
from scheduler.states import FeedKind
from scheduler.store import durations, estimates, picture, received
from scheduler.store.dependencies import FeedRow
from scheduler.store.leader import Memory
from scheduler.store.moves import Move
from scheduler.store.picture import Known, Owner
from scheduler.store.policy import content_of, current_policy
from scheduler.store.received import Slice

READ_AT_ONCE = 2_000
"""How many lines a turn reads after a takeover; those behind come first."""

SWEEP_EVERY = timedelta(seconds=30)
"""How often what is known is compared with the database."""

SWEPT_AT_ONCE = 100
"""How many lines a sweep reads anew; in time it comes round to all."""

KEEP_LEARNED_EVERY = timedelta(seconds=1)
"""How often what was learned, of durations and of estimates, is written."""

log = logging.getLogger(__name__)


class _Line(NamedTuple):
    """What is known of a line."""

    jobs: list[int]
    has_more: bool


class Mirror:
    """The leader's memory. All of it can be lost and read again."""

    def __init__(self, session: Session, memory: Memory, now: datetime) -> None:
        self.engine = Engine(
            picture.clock_from_json(memory.clock),
            picture.reservation_from_json(memory.reservation),
        )
        self.running: dict[int, Running] = {}
        self.learned: Durations = durations.read(session)
        self.scorer = Scorer(estimates.read(session))
        self._starts = picture.starts_from_json(memory.starts)
        self._take_over(current_policy(session), now)
        self._owners: dict[int, Owner] = {}
        self._last: dict[int, tuple[int, int]] = {}  # the last known places in lines that go on
        self._unread: list[int] = []  # owners whose lines have yet to be read
        self._returned: set[int] = set()  # those to whose lines a job has come back
        self._swept_at = now
        self._sweep: list[int] = []  # owners whose lines this round has yet to compare
        self._unkept: dict[Key, Learned] = {}
        self._kept_at = now
        self._received: dict[Slice, float] = {}  # and not written yet
        self._ended_per_second = 0.0
        self._looked_at = now
        self._read_all(session, now)

    # Following the database

    def follow(
        self, session: Session, rows: Sequence[FeedRow], moves: Iterable[Move], now: datetime
    ) -> None:
        """Take in what happened since the last turn."""
        self._follow_terms(session, rows, now)
        present = picture.read_running(session)
        touched = {row.owner_id for row in rows if row.kind is not FeedKind.TERMS}
        moved = {move.owner_id for move in moves}
        self._know(session, touched | moved | {job.owner_id for job in present}, now)
        self._take_in_ended(rows, present, now)
        self._count_ended(rows, now)
        # Of a job whose place has changed, something else holds than what was said of it first.
        outdated = {FeedKind.ENDED, FeedKind.LINED}
        self.scorer.forget([row.job_id for row in rows if row.kind in outdated])
        self._read_lines(session, self._stale(rows) | moved | self._next_unread(), now)
        if now - self._swept_at >= SWEEP_EVERY:
            self._compare(session, now)
        self._follow_limits(session, now)

    def decide(self, now: datetime) -> Decision:
        """Decide whom to admit now."""
        return self.engine.decide(now, self.running.values())

    def note(self, decided: Decision, moves: Sequence[Move], now: datetime) -> None:
        """Take in which of the admissions *decided* came about."""
        moved = {move.id: move for move in moves}
        self.scorer.started({move.id: move.at for move in moves})
        for admission in decided.admissions:
            move = moved.get(admission.id)
            if move is not None:
                job = admission.running(move.at, attempt=move.attempt)
                self.running[job.id] = job
                self._starts.note(job.job_type, now)
            else:
                self.engine.correct(
                    admission.owner_id, charge=admission.charge, used=0.0, express=admission.express
                )
                # Whose ask was taken down meanwhile did not get the job: it is still in line. Nor
                # did a job move that somebody holds, who may hold it for long: that can wait.
                self._returned.add(admission.owner_id)

    def read_on(self, session: Session, now: datetime) -> None:
        """Read on where lines have become short."""
        window = self._window()
        thin = self.engine.thin_lines(max(1, window // 2))
        last = {owner: self._last[owner] for owner in thin if owner in self._last}
        if not last:
            return
        lines = picture.read_on(session, last, window, self._owners, self._known(now))
        for owner in last:
            self._extend(owner, lines.get(owner), window)

    def keep(self, session: Session, decided: Decision, now: datetime) -> Memory:
        """Write what everybody has received and what was learned; return what else to remember."""
        accounts = {account.owner_id: account for account in decided.accounts}
        accounts |= {account.owner_id: account for account in self.engine.changed_accounts()}
        picture.write_accounts(session, accounts.values())
        received.add(session, self._received)
        self._received = {}
        if now - self._kept_at >= KEEP_LEARNED_EVERY:
            durations.write(session, self._unkept)
            estimates.add(session, self.scorer.take())
            self._unkept, self._kept_at = {}, now
        self._forget_idle(accounts)
        return picture.to_memory(self.engine.clock, self.engine.reservation, self._starts)

    def front(self, now: datetime, most: int) -> Snapshot:
        """Return what a pass over about the first *most* jobs sees."""
        return self.engine.front(now, self.running.values(), most)

    def lines(self, lengths: Iterable[tuple[int, int]]) -> Iterator[Queued]:
        """Go through the lines, of which the *lengths* are given, as a curve sees them."""
        for owner, waiting in lengths:
            account = self.engine.accounts.get(owner)
            if account is not None and account.tag is not None:
                weight = effective_weight(account.weight)
                yield Queued(account.tag, weight, waiting, self.engine.clock.mean_cost)

    @property
    def reaches_everything(self) -> bool:
        """Tell whether every job that waits is known here."""
        return not self._last and not self._unread and not self._returned

    @property
    def starts_per_second(self) -> float | None:
        """At what rate jobs start: that at which they end, of late."""
        return self._ended_per_second or None

    @property
    def is_reading(self) -> bool:
        """Tell whether lines have yet to be read at once."""
        return bool(self._unread)

    # Parts of following

    def _read_all(self, session: Session, now: datetime) -> None:
        self._follow_limits(session, now)  # what ended before is measured against the machine
        self._learn_groups(session)
        waiting, in_line = picture.read_owners(session), picture.read_in_line(session)
        self._know(session, {*waiting, *in_line}, now)
        for owner in set(in_line) - set(waiting):
            self.engine.settle(owner)
        self._unread = sorted(waiting, key=self._place_of, reverse=True)
        self._tell_unseen()

    def _follow_terms(self, session: Session, rows: Sequence[FeedRow], now: datetime) -> None:
        policy = current_policy(session)
        is_due = self._rules_change_at is not None and now >= self._rules_change_at
        told = any(row.kind is FeedKind.TERMS for row in rows)
        if policy.version == self._version and not is_due and not told:
            return
        terms_before = {number: owner.terms for number, owner in self._owners.items()}
        self._take_over(policy, now)
        self._learn_groups(session)
        self._learn_accounts(session, list(self._owners), now)
        changed = {
            number
            for number in self.engine.owners()
            if self._owners[number].terms != terms_before.get(number)
        }
        self._unread = sorted({*self._unread, *changed}, key=self._place_of, reverse=True)

    def _take_over(self, policy: PolicyVersion, now: datetime) -> None:
        self._version, self._policy = policy.version, content_of(policy)
        self._rules: Rules = rules_of(policy.rules)
        self._rules_change_at = self._rules.changes_at(now)

    def _learn_groups(self, session: Session) -> None:
        for group in picture.read_groups(session).values():
            self.engine.set_group(group)

    def _know(self, session: Session, owners: Iterable[int], now: datetime) -> None:
        """Make accounts known that are not."""
        unknown = [owner for owner in owners if owner not in self._owners]
        if unknown:
            self._learn_accounts(session, unknown, now)

    def _learn_accounts(self, session: Session, owners: Sequence[int], now: datetime) -> None:
        found = picture.read_accounts(session, owners, self._known(now))
        self._owners |= found
        for owner in found.values():
            self.engine.set_account(owner.account)

    def _take_in_ended(
        self, rows: Sequence[FeedRow], present: Iterable[Running], now: datetime
    ) -> None:
        self.learned, changed = self.learned.learn(accounting.lasted(rows))
        self._unkept |= changed
        before, self.running = self.running, {job.id: job for job in present}
        self.engine.advance(now, accounting.ran_since(before, present, rows, now))
        for row in rows:
            if row.charge is not None:
                used = accounting.used(row, before.get(row.job_id), self.engine.capacity)
                self.engine.correct(
                    row.owner_id, charge=row.charge, used=used, express=bool(row.express)
                )
                for part, amount in accounting.received(row, used, now).items():
                    self._received[part] = self._received.get(part, 0.0) + amount

    def _count_ended(self, rows: Sequence[FeedRow], now: datetime) -> None:
        seconds = (now - self._looked_at).total_seconds()
        if seconds <= 0:
            return
        ended = sum(row.used_seconds is not None for row in rows)
        part = min(1.0, seconds)  # of the last second
        self._ended_per_second += part * (ended / seconds - self._ended_per_second)
        self._looked_at = now

    def _follow_limits(self, session: Session, now: datetime) -> None:
        ahead = int(self._ended_per_second * RUN_AHEAD.total_seconds())
        self.engine.set_limits(
            picture.read_limits(session, self._policy, self._starts, now=now, ahead=ahead)
        )

    def _stale(self, rows: Sequence[FeedRow]) -> set[int]:
        """Return whose lines changed within what is known of them."""
        return {
            row.owner_id
            for row in rows
            if row.kind is FeedKind.LINED and not self._is_behind(row.owner_id, row.rank)
        }

    def _is_behind(self, owner: int, rank: int | None) -> bool:
        last = self._last.get(owner)
        return rank is not None and last is not None and rank > last[0]

    def _next_unread(self) -> set[int]:
        read = self._unread[-READ_AT_ONCE:]
        del self._unread[-READ_AT_ONCE:]
        if read:
            self._tell_unseen()
        returned, self._returned = self._returned, set()
        return returned.union(read)

    def _read_lines(self, session: Session, owners: set[int], now: datetime) -> None:
        """Read the lines of *owners* anew, in the place of what is known of them."""
        wanted, window = sorted(owners), self._window()
        self._know(session, wanted, now)
        lines = picture.read_windows(session, wanted, window, self._owners, self._known(now))
        for owner in wanted:
            self.engine.drop(owner)
            self._extend(owner, lines.get(owner), window)
            self.engine.settle(owner)

    def _extend(self, owner: int, read: picture.Window | None, window: int) -> None:
        jobs = read.jobs if read is not None else []
        has_more = read is not None and len(jobs) >= window
        if read is not None and has_more:
            self._last[owner] = read.last
        else:
            self._last.pop(owner, None)
        self.engine.extend(owner, jobs, has_more=has_more)

    def _compare(self, session: Session, now: datetime) -> None:
        """Compare who waits, and some lines in turn, with the database, and repair."""
        self._swept_at = now
        received.forget(session, now=now)
        durations.forget(session)
        waiting, known = set(picture.read_owners(session)), set(self.engine.owners())
        differing = (waiting ^ known) - set(self._unread)
        if not self._sweep:
            self._sweep = sorted(known)
        swept, self._sweep = self._sweep[:SWEPT_AT_ONCE], self._sweep[SWEPT_AT_ONCE:]
        before = {owner: self._what_is_known_of(owner) for owner in swept}
        self._read_lines(session, differing | set(swept), now)
        differing |= {
            owner for owner in swept if not _agree(before[owner], self._what_is_known_of(owner))
        }
        if differing:
            log.warning("lines repaired", extra={"owners": len(differing)})

    # Smaller parts

    def _known(self, now: datetime) -> Known:
        return Known(self._rules, self.learned, now)

    def _window(self) -> int:
        return picture.window_for(len(self.engine.owners()) + len(self._unread))

    def _what_is_known_of(self, owner: int) -> _Line:
        return _Line([job.id for job in self.engine.line_of(owner)], self.engine.has_more(owner))

    def _place_of(self, owner: int) -> tuple[float, int]:
        account = self._owners[owner].account
        return (account.meter if account.tag is None else account.tag, owner)

    def _tell_unseen(self) -> None:
        unseen = (
            self._owners[each].account for each in self._unread if not self.engine.waits(each)
        )
        self.engine.set_unseen(account for account in unseen if account.tag is not None)

    def _forget_idle(self, changed: Mapping[int, object]) -> None:
        running = {job.owner_id for job in self.running.values()}
        waiting = self._returned.union(self._unread)
        for owner in changed:
            if owner not in running and owner not in waiting and not self.engine.waits(owner):
                self.engine.forget(owner)
                self._owners.pop(owner, None)
                self._last.pop(owner, None)


def _agree(one: _Line, other: _Line) -> bool:
    """Tell whether two may be the same line, known as far as each goes."""
    shorter, longer = sorted((one, other), key=lambda line: len(line.jobs))
    is_whole = len(shorter.jobs) == len(longer.jobs) or shorter.has_more
    return is_whole and longer.jobs[: len(shorter.jobs)] == shorter.jobs
