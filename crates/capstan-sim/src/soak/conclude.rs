//! What must hold when a workload has come to rest.

use super::act::Deed;
use super::driver::{Soak, Wrong, errand};
use capstan_kernel::audit::audit;
use capstan_kernel::host_op::HostOp;
use capstan_model::id::{EndpointId, KRef, PromiseId, VatId};
use capstan_model::refs::{ERef, Side, VRef};
use capstan_store::schema::{
    Clist, ClistByEref, Code, Decider, GcActions, Grants, Holds, Objects, PromiseQueue, PromiseState,
    Promises, Reaps, RunQueue, Subclusters, VatPhase, VatStore, Vats,
};
use std::collections::BTreeMap;

/// Rounds of settling and of ending vats that wait for themselves.
const ROUNDS_MAX: usize = 60;

impl Soak {
    /// Lets everything end in good order and looks for what is left open, lost, doubled or leaked.
    pub(super) fn conclude(&mut self, calm: bool) -> Result<(), Wrong> {
        self.settle_down()?;
        self.revive()?;
        self.settle_everything()?;
        if let Some(id) = self.waits() {
            return Err(format!("request {id} was never answered"));
        }
        for (vat, actor) in &self.actors {
            if let Some(promise) = actor.promises.keys().next() {
                return Err(format!("{vat} was never told of {promise}"));
            }
        }
        if let Some(overtaken) = self.ledger.overtaken() {
            return Err(overtaken);
        }
        if calm
            && !self.stopped
            && let Some(number) = self.ledger.unheard().first()
        {
            return Err(format!("message {number} was never executed"));
        }
        self.withdraw_grants()?;
        self.errand_to_all(&Deed::ForgetAll)?;
        self.request(HostOp::Collect, None)?;
        self.settle_down()?;
        self.names_agree()?;
        self.only_roots_are_left()?;
        self.end_everything()
    }

    fn live(&self) -> Vec<VatId> {
        let vats = self.kernel.db().iter::<Vats>();
        vats.filter(|(_, row)| row.phase != VatPhase::Terminated).map(|(vat, _)| *vat).collect()
    }

    /// Starts what failed to start.
    fn revive(&mut self) -> Result<(), Wrong> {
        let failed = self.kernel.db().iter::<Vats>();
        let failed = failed.filter(|(_, row)| matches!(row.phase, VatPhase::Failed(_))).map(|(vat, _)| *vat);
        for vat in failed.collect::<Vec<_>>() {
            self.request(HostOp::RestartVat(vat), None)?;
        }
        self.settle_down()
    }

    fn errand_to_all(&mut self, deed: &Deed) -> Result<(), Wrong> {
        for vat in self.live() {
            let root = self.kernel.db().get::<ClistByEref>(&(vat.into(), VRef::ROOT.into())).copied();
            let root = root.ok_or_else(|| format!("{vat} has no root"))?;
            self.call(root, Vec::new(), &errand(deed.clone()))?;
        }
        self.settle_down()
    }

    /// Has all promises settled. A message whose result is what it waits for waits until its sender settles it or ends.
    fn settle_everything(&mut self) -> Result<(), Wrong> {
        for _ in 0..ROUNDS_MAX {
            self.errand_to_all(&Deed::SettleAll)?;
            if self.actors.values().any(|actor| actor.promises.values().any(|decides| *decides)) {
                continue;
            }
            let open = self.unresolved();
            let decided = open.iter().find(|(_, decider)| decider.is_some()).or(open.iter().next());
            let Some((&kp, &decider)) = decided else { return Ok(()) };
            let parked: Vec<_> =
                self.kernel.db().iter::<PromiseQueue>().map(|(_, item)| item.result).collect();
            if !parked.contains(&Some(kp)) {
                return Err(format!("nobody will ever settle {kp}, decided by {decider:?}"));
            }
            match decider {
                Some(Decider::Endpoint(EndpointId::Vat(vat))) => {
                    self.request(HostOp::TerminateVat(vat), None)?;
                    self.settle_down()?;
                }
                None | Some(Decider::Endpoint(EndpointId::Remote(_)) | Decider::Kernel) => {
                    return Err(format!("{kp} is decided by {decider:?}"));
                }
            }
        }
        Err("promises are still open after many rounds".into())
    }

    fn unresolved(&self) -> BTreeMap<PromiseId, Option<Decider>> {
        let open = self.kernel.db().iter::<Promises>().filter_map(|(kp, row)| match row.state {
            PromiseState::Unresolved { decider, .. } => Some((*kp, decider)),
            PromiseState::Fulfilled(_) | PromiseState::Rejected(_) => None,
        });
        open.collect()
    }

    fn withdraw_grants(&mut self) -> Result<(), Wrong> {
        let open: Vec<_> = self.kernel.db().iter::<Grants>().filter(|(_, row)| !row.revoked).collect();
        for grant in open.into_iter().map(|(grant, _)| *grant).collect::<Vec<_>>() {
            self.request(HostOp::RevokeUrl(grant), None)?;
        }
        Ok(())
    }

    /// Every vat and the kernel have the same c-list.
    pub(super) fn names_agree(&self) -> Result<(), Wrong> {
        for (&vat, actor) in self.actors.iter().filter(|(_, actor)| actor.inbox.is_empty()) {
            let (mut imports, mut exports) = (BTreeMap::new(), BTreeMap::new());
            let own = self.kernel.db().iter::<Clist>().filter(|((of, _), _)| *of == vat.into());
            for (_, row) in own {
                let ERef::Vat(name) = row.eref else {
                    return Err(format!("{vat} calls something {}", row.eref));
                };
                match name.side() {
                    _ if !name.is_object() => {
                        if !actor.promises.contains_key(&name) {
                            return Err(format!("{vat} has forgotten {name}, the kernel has not"));
                        }
                    }
                    Side::Import => drop(imports.insert(name, row.reachable)),
                    Side::Export => drop(exports.insert(name, row.reachable)),
                }
            }
            if imports != actor.imports {
                return Err(format!("{vat} imports {:?}, the kernel says {imports:?}", actor.imports));
            }
            if exports != actor.exports {
                return Err(format!("{vat} exports {:?}, the kernel says {exports:?}", actor.exports));
            }
        }
        Ok(())
    }

    /// Nobody holds anything: of the live vats their roots are left, and nothing else.
    fn only_roots_are_left(&self) -> Result<(), Wrong> {
        let db = self.kernel.db();
        let live = self.live();
        for ((endpoint, kref), row) in db.iter::<Clist>() {
            if row.eref != VRef::ROOT.into() {
                return Err(format!("{endpoint} still has {kref} as {}", row.eref));
            }
        }
        for (ko, row) in db.iter::<Objects>() {
            let rooted = live.iter().any(|vat| {
                db.get::<ClistByEref>(&((*vat).into(), VRef::ROOT.into())) == Some(&KRef::Object(*ko))
            });
            if !rooted || (row.reachable, row.recognizable) != (1, 1) {
                return Err(format!("{ko} is left: {row:?}"));
            }
        }
        let left = [
            ("promises", db.len::<Promises>()),
            ("queue items", db.len::<RunQueue>() + db.len::<PromiseQueue>()),
            ("holds", db.len::<Holds>()),
            ("GC actions", db.len::<GcActions>()),
            ("reaps", db.len::<Reaps>()),
            ("dead vats", db.len::<Vats>() - live.len()),
        ];
        match left.into_iter().find(|(_, number)| *number > 0) {
            Some((what, number)) => Err(format!("{number} {what} are left")),
            None => Ok(()),
        }
    }

    /// All vats end: nothing at all is left, and the disk has what the memory has.
    fn end_everything(&mut self) -> Result<(), Wrong> {
        let all: Vec<_> = self.kernel.db().iter::<Subclusters>().map(|(id, _)| *id).collect();
        for id in all {
            self.request(HostOp::TerminateSubcluster(id), None)?;
        }
        self.settle_down()?;
        let db = self.kernel.db();
        let left = [
            ("objects", db.len::<Objects>()),
            ("c-list entries", db.len::<Clist>()),
            ("vats", db.len::<Vats>()),
            ("subclusters", db.len::<Subclusters>()),
            ("programs", db.len::<Code>()),
            ("vat store rows", db.len::<VatStore>()),
            ("vats that run", self.actors.len()),
        ];
        if let Some((what, number)) = left.into_iter().find(|(_, number)| *number > 0) {
            return Err(format!("{number} {what} are left after everything ended"));
        }
        if self.disk.reload().snapshot() != db.tables().snapshot() {
            return Err("the disk is not what the kernel has".into());
        }
        audit(&self.disk.reload()).first().map_or(Ok(()), |problem| Err(problem.to_string()))
    }
}
