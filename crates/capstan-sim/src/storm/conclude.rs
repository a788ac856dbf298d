//! What must hold when a storm is over: everything is up, healed and drained.

use super::agent::WAIT;
use super::driver::Storm;
use super::errand::{Body, Deed, Reply, Settlement};
use super::watch::Wrong;
use crate::world::{KernelId, Outcome};
use capstan_kernel::audit::audit;
use capstan_kernel::host_op::HostOp;
use capstan_kernel::kernel::Generation;
use capstan_model::id::EndpointId;
use capstan_model::refs::{ERef, RefKind, Side, VRef};
use capstan_store::schema::{
    Clist, GcActions, Grants, Holds, Objects, Outbox, PromiseQueue, PromiseState, Promises, Reaps,
    Redemptions, Remotes, RunQueue, VatStore, Waiters,
};
use std::collections::{BTreeMap, BTreeSet};

/// Rounds of settling.
const ROUNDS_MAX: usize = 12;
/// Longer than any clock was set back, milliseconds.
const LONG: u64 = 10_000;

/// A body that lets a vat do one thing.
fn only(deed: Deed) -> Body {
    Body { deeds: vec![deed], answer: Reply::Now(Settlement::default()) }
}

impl Storm {
    /// Lets everything end in good order and looks for what is left open, lost or leaked.
    pub(super) fn conclude(&mut self) -> Result<(), Wrong> {
        self.repair();
        self.rest()?;
        self.nobody_waits()?;
        self.settle_everything()?;
        self.names_match()?;
        // What dead lives were given goes when their successors have been heard (03 D-9).
        self.everybody_hears()?;
        self.forget_everything()?;
        self.nothing_is_left()
    }

    fn repair(&mut self) {
        self.end_copies();
        self.world.thaw();
        self.heal();
        for kernel in self.kernels.clone() {
            self.world.spare(kernel);
            self.world.slow_disk(kernel, 3);
            self.world.lose_verdicts(kernel, 0);
            self.start(kernel);
        }
        for (a, b) in self.pairs() {
            if self.spoilt && !self.is_classic(a) && !self.is_classic(b) {
                // What was lost on a stream that goes on is sent again on the next; to a classic peer, by a timer.
                self.world.drop_streams(a, b);
            }
            // Without a user's doing nobody needs to be told to try again.
            if self.closed {
                self.reconnect(a, b);
                self.reconnect(b, a);
            }
        }
    }

    fn is_classic(&self, kernel: KernelId) -> bool {
        self.world.node(kernel).config.generation == Generation::Classic
    }

    fn pairs(&self) -> Vec<(KernelId, KernelId)> {
        let kernels = self.kernels.iter().enumerate();
        kernels.flat_map(|(at, a)| self.kernels.iter().skip(at + 1).map(|b| (*a, *b))).collect()
    }

    fn rest(&mut self) -> Result<(), Wrong> {
        // What is answered leads to more.
        for _ in 0..4 {
            self.world.run_until_quiet();
            self.world.advance(LONG);
            self.look()?;
        }
        Ok(())
    }

    /// I8, I16, I20.
    fn nobody_waits(&self) -> Result<(), Wrong> {
        if let Some(open) = self.unanswered() {
            return Err(format!("I8: never answered: {open}"));
        }
        if let Some(asked) = self.calls.first() {
            let count = self.calls.len();
            // Those that vats keep open are settled later.
            if self.all_settled() {
                return Err(format!(
                    "I8: {count} calls never settled, first {} of {}",
                    asked.id,
                    self.world.peer(asked.kernel)
                ));
            }
        }
        for kernel in &self.kernels {
            let db = self.world.db(*kernel);
            let sendable = db.iter::<Outbox>().filter(|(_, row)| !row.text.is_empty()).count();
            let left = [
                ("frames not acknowledged", sendable),
                ("queue items", db.len::<RunQueue>()),
                ("redemptions", db.len::<Redemptions>()),
                ("GC actions", db.len::<GcActions>()),
                ("reaps", db.len::<Reaps>()),
            ];
            if let Some((what, number)) = left.into_iter().find(|(_, number)| *number > 0) {
                return Err(format!("I20: {number} {what} at {}", self.world.peer(*kernel)));
            }
        }
        Ok(())
    }

    fn all_settled(&self) -> bool {
        self.kernels.iter().all(|kernel| {
            self.world.db(*kernel).iter::<Promises>().all(|(_, row)| match row.state {
                PromiseState::Unresolved { .. } => false,
                PromiseState::Fulfilled(_) | PromiseState::Rejected(_) => true,
            })
        })
    }

    fn errand_to_all(&mut self, deed: &Deed) -> Result<(), Wrong> {
        for kernel in self.kernels.clone() {
            for (_, root, label) in self.vats(kernel) {
                self.call_object(kernel, root.into(), label, Vec::new(), &only(deed.clone()));
            }
        }
        self.rest()
    }

    /// All vats settle what they decide; then nobody may wait any more (I8), and in a calm storm every message to an
    /// object was executed (I7).
    fn settle_everything(&mut self) -> Result<(), Wrong> {
        for _ in 0..ROUNDS_MAX {
            self.errand_to_all(&Deed::SettleAll)?;
            if self.all_settled() {
                break;
            }
        }
        if let Some(asked) = self.calls.first() {
            let outcome = self.world.outcome(asked.call);
            let peer = self.world.peer(asked.kernel);
            return Err(format!("I8: {} of {peer} never settled: {outcome:?}", asked.id));
        }
        for kernel in &self.kernels {
            let db = self.world.db(*kernel);
            for ((vat, key), label) in db.iter::<VatStore>() {
                if key.starts_with(WAIT) {
                    return Err(format!(
                        "I8: {vat} of {} was never told of {key}, {label}",
                        self.world.peer(*kernel)
                    ));
                }
            }
            if let Some((kp, row)) = db.iter::<Promises>().find(|(_, row)| match row.state {
                PromiseState::Unresolved { .. } => true,
                PromiseState::Fulfilled(_) | PromiseState::Rejected(_) => false,
            }) {
                return Err(format!("I8: {kp} of {} is open: {row:?}", self.world.peer(*kernel)));
            }
            for (what, number) in [("waiters", db.len::<Waiters>()), ("parked", db.len::<PromiseQueue>())] {
                if number > 0 {
                    return Err(format!("I8: {number} {what} at {}", self.world.peer(*kernel)));
                }
            }
        }
        Ok(())
    }

    /// Kind and number of the names of one side between two kernels.
    fn names(&self, kernel: KernelId, other: KernelId, side: Side) -> BTreeMap<(RefKind, u64), bool> {
        let Some(rid) = self.world.remote(kernel, &self.world.peer(other)) else { return BTreeMap::new() };
        let entries = self.world.db(kernel).iter::<Clist>();
        let own = entries.filter(|((endpoint, _), _)| *endpoint == EndpointId::Remote(rid));
        own.filter_map(|(_, row)| match row.eref {
            ERef::Remote(name) if name.side == side => Some(((name.kind, name.index), row.reachable)),
            ERef::Remote(_) | ERef::Vat(_) => None,
        })
        .collect()
    }

    /// What one side may say, the other understands; where no session ended, and both speak of sessions, both have the
    /// same names (I12, I14).
    fn names_match(&self) -> Result<(), Wrong> {
        for (a, b) in self.pairs() {
            for (holder, giver) in [(a, b), (b, a)] {
                let held = self.names(holder, giver, Side::Export);
                let given = self.names(giver, holder, Side::Import);
                let names = |of: &BTreeMap<(RefKind, u64), bool>| {
                    of.keys().filter(|(kind, _)| *kind == RefKind::Object).copied().collect::<BTreeSet<_>>()
                };
                let lost =
                    held.iter().find(|(name, reachable)| **reachable && given.get(name) != Some(&true));
                let (peer, other) = (self.world.peer(holder), self.world.peer(giver));
                if let Some((name, _)) = lost {
                    return Err(format!("I14: {peer} holds {name:?} of {other}, which has {given:?}"));
                }
                if !self.watch.ended && names(&held) != names(&given) {
                    return Err(format!("I12: {peer} holds {held:?} of {other}, which gave {given:?}"));
                }
            }
        }
        Ok(())
    }

    /// Everybody lets go of everything.
    fn forget_everything(&mut self) -> Result<(), Wrong> {
        for kernel in self.kernels.clone() {
            let open = self.world.db(kernel).iter::<Grants>().filter(|(_, row)| !row.revoked);
            for grant in open.map(|(grant, _)| *grant).collect::<Vec<_>>() {
                self.wish_done(kernel, HostOp::RevokeUrl(grant));
            }
        }
        self.errand_to_all(&Deed::ForgetAll)?;
        for _ in 0..2 {
            for kernel in self.kernels.clone() {
                self.wish_done(kernel, HostOp::Collect);
            }
            self.rest()?;
        }
        self.nobody_waits()
    }

    /// I15: of live vats their roots are left, and nothing else. With a classic kernel names of settled promises are
    /// kept, and with them whatever they were settled with.
    fn nothing_is_left(&self) -> Result<(), Wrong> {
        if !self.plan.all_session() {
            return Ok(());
        }
        for kernel in &self.kernels {
            let (peer, db) = (self.world.peer(*kernel), self.world.db(*kernel));
            let is_root = |row: &capstan_store::schema::ClistRow| row.eref == VRef::ROOT.into();
            for ((endpoint, kref), row) in db.iter::<Clist>() {
                if !is_root(row) {
                    return Err(format!("I15: {endpoint} of {peer} still has {kref} as {}", row.eref));
                }
            }
            let roots = db.iter::<Clist>().filter(|(_, row)| is_root(row)).count();
            let left = [
                ("objects", db.len::<Objects>() - roots),
                ("promises", db.len::<Promises>()),
                ("holds", db.len::<Holds>()),
            ];
            if let Some((what, number)) = left.into_iter().find(|(_, number)| *number > 0) {
                return Err(format!("I15: {number} {what} are left at {peer}"));
            }
            let disk = self.world.node(*kernel).disk.reload();
            if disk.snapshot() != db.tables().snapshot() {
                return Err(format!("I21: the disk of {peer} is not what it has"));
            }
            if let Some(problem) = audit(&disk).first() {
                return Err(format!("I13: audit of the disk of {peer}: {problem}"));
            }
        }
        Ok(())
    }

    /// I20: everybody can still call everybody. The first word to a peer that was set back unnoticed may be what
    /// discovers it, and is then refused.
    fn everybody_hears(&mut self) -> Result<(), Wrong> {
        for kernel in self.kernels.clone() {
            if self.vats(kernel).is_empty() {
                self.open(kernel);
            }
        }
        self.rest()?;
        for last in [false, true] {
            for (a, b) in self.pairs() {
                for (from, to) in [(a, b), (b, a)] {
                    let Some((_, root, _)) = self.vats(to).first().cloned() else {
                        return Err(format!("I20: {} has no vat", self.world.peer(to)));
                    };
                    let url = self.world.issue(to, root);
                    let call = self.world.start_call(from, &url, "ping", Vec::new());
                    self.world.run_until_quiet();
                    if self.world.outcome(call).is_none() {
                        // Who was closed by a peer that has forgotten it since tries again as seldom as this.
                        self.world.advance(4 * LONG);
                    }
                    self.look()?;
                    match self.world.outcome(call) {
                        Some(Outcome::Fulfilled(_)) => {}
                        Some(Outcome::Refused(_)) if !last && self.watch.ended => {}
                        other => {
                            let (from, to) = (self.world.peer(from), self.world.peer(to));
                            return Err(format!("I20: {from} calls {to} and gets {other:?}"));
                        }
                    }
                }
            }
        }
        let db = self.kernels.iter().map(|kernel| self.world.db(*kernel));
        let stuck = db.map(|db| db.iter::<Remotes>().filter(|(_, row)| row.closed).count()).sum::<usize>();
        if stuck > 0 { Err(format!("I20: {stuck} peers are closed")) } else { Ok(()) }
    }
}
