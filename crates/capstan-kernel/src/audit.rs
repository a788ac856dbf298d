//! The audit: everything recounted from scratch (01 §8). Three callers: debug builds after every transaction, the
//! simulator, `fsck`.
//!
//! **Invariant:** shares no code with what it checks.

use capstan_model::id::{EndpointId, KRef, ObjectId, PromiseId, VatId};
use capstan_model::refs::{ERef, RefKind, Side, VObject, VRef};
use capstan_store::schema::{
    Decider, GcKind, HoldKind, Owner, PromiseState, QueueItem, QueuePlace, SendItem, Tables, VatPhase,
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Something found wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The invariant of 01 §8; 0 where a table that mirrors another is wrong.
    pub rule: u8,
    /// What is wrong.
    pub what: String,
    /// What could be done.
    pub advice: Option<&'static str>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {}: {}", self.rule, self.what)
    }
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "each field counts what its name says")]
pub struct Checked {
    pub objects: u64,
    pub promises: u64,
    pub clist_entries: u64,
    pub queue_items: u64,
    pub vats: u64,
    pub subclusters: u64,
    pub remotes: u64,
    pub outbox_frames: u64,
    pub vat_store_rows: u64,
    pub grants: u64,
}

/// Counts what an audit looks at.
pub fn checked(tables: &Tables) -> Checked {
    let count = |rows: usize| u64::try_from(rows).unwrap_or(u64::MAX);
    Checked {
        objects: count(tables.objects.iter().count()),
        promises: count(tables.promises.iter().count()),
        clist_entries: count(tables.clist.iter().count()),
        queue_items: count(tables.run_queue.iter().count() + tables.promise_queue.iter().count()),
        vats: count(tables.vats.iter().count()),
        subclusters: count(tables.subclusters.iter().count()),
        remotes: count(tables.remotes.iter().count()),
        outbox_frames: count(tables.outbox.iter().count()),
        vat_store_rows: count(tables.vat_store.iter().count()),
        grants: count(tables.grants.iter().count()),
    }
}

/// Recounts everything and returns what is wrong.
pub fn audit(tables: &Tables) -> Vec<Problem> {
    let mut audit = Audit::new(tables);
    audit.clists();
    audit.owners();
    audit.services();
    audit.counts();
    audit.queue();
    audit.promises();
    audit.counters();
    audit.vats();
    audit.mirrors();
    audit.problems
}

struct Audit<'t> {
    tables: &'t Tables,
    problems: Vec<Problem>,
    objects: BTreeSet<ObjectId>,
    promises: BTreeSet<PromiseId>,
    endpoints: BTreeSet<EndpointId>,
}

impl<'t> Audit<'t> {
    fn new(tables: &'t Tables) -> Self {
        let vats = tables.vats.iter().map(|(vat, _)| EndpointId::Vat(*vat));
        let remotes = tables.remotes.iter().map(|(rid, _)| EndpointId::Remote(*rid));
        Audit {
            tables,
            problems: Vec::new(),
            objects: tables.objects.iter().map(|(ko, _)| *ko).collect(),
            promises: tables.promises.iter().map(|(kp, _)| *kp).collect(),
            endpoints: vats.chain(remotes).collect(),
        }
    }

    fn report(&mut self, rule: u8, what: String) {
        self.problems.push(Problem { rule, what, advice: None });
    }

    fn exists(&self, kref: KRef) -> bool {
        match kref {
            KRef::Object(ko) => self.objects.contains(&ko),
            KRef::Promise(kp) => self.promises.contains(&kp),
        }
    }

    /// Rules 1, 5 (imports) and 12: entries name what exists, one name each way.
    fn clists(&mut self) {
        let mut names = BTreeSet::new();
        let counters: BTreeMap<EndpointId, (u64, u64)> = self.import_counters();
        for (&(endpoint, kref), row) in self.tables.clist.iter() {
            if !self.exists(kref) {
                self.report(1, format!("{endpoint} has an entry for {kref}, which does not exist"));
            }
            if !self.endpoints.contains(&endpoint) {
                self.report(12, format!("{endpoint} has a c-list and no record"));
            }
            if !names.insert((endpoint, row.eref)) {
                self.report(1, format!("{endpoint} calls two things {}", row.eref));
            }
            let of_kind = match (endpoint, row.eref) {
                (EndpointId::Vat(_), ERef::Vat(vref)) => vref.is_object() == kref.object().is_some(),
                (EndpointId::Remote(_), ERef::Remote(rref)) => {
                    (rref.kind == RefKind::Object) == kref.object().is_some()
                }
                (EndpointId::Vat(_), ERef::Remote(_)) | (EndpointId::Remote(_), ERef::Vat(_)) => false,
            };
            if !of_kind {
                self.report(1, format!("{endpoint} calls {kref} {}", row.eref));
            }
            let (objects, promises) = counters.get(&endpoint).copied().unwrap_or_default();
            let spent = match import_number(row.eref) {
                Some((RefKind::Object, number)) => number < objects,
                Some((RefKind::Promise, number)) => number < promises,
                None => true,
            };
            if !spent {
                self.report(5, format!("{endpoint} has {}, which was not given out", row.eref));
            }
        }
    }

    fn import_counters(&self) -> BTreeMap<EndpointId, (u64, u64)> {
        let vats = self.tables.vats.iter();
        let vats = vats.map(|(vat, row)| (EndpointId::Vat(*vat), (row.next_object, row.next_promise)));
        let remotes = self.tables.remotes.iter();
        let remotes =
            remotes.map(|(rid, row)| (EndpointId::Remote(*rid), (row.next_object, row.next_promise)));
        vats.chain(remotes).collect()
    }

    /// Rule 2: an object's owner and the one entry that says so.
    fn owners(&mut self) {
        let mut exporters: BTreeMap<ObjectId, EndpointId> = BTreeMap::new();
        for (&(endpoint, kref), row) in self.tables.clist.iter() {
            if let (KRef::Object(ko), Side::Export) = (kref, row.eref.side())
                && let Some(other) = exporters.insert(ko, endpoint)
            {
                self.report(2, format!("{other} and {endpoint} both export {ko}"));
            }
        }
        for (&ko, row) in self.tables.objects.iter() {
            let owner = match row.owner {
                Some(Owner::Endpoint(endpoint)) => Some(endpoint),
                Some(Owner::Kernel) | None => None,
            };
            let exporter = exporters.get(&ko).copied();
            if owner != exporter {
                let name = |who: Option<EndpointId>| who.map_or("nobody".to_owned(), |e| e.to_string());
                self.report(2, format!("{ko} is owned by {}, exported by {}", name(owner), name(exporter)));
            }
        }
    }

    /// Rule 2, for the kernel itself: what it owns are its services.
    fn services(&mut self) {
        let services: BTreeSet<_> = self.tables.services.iter().map(|(_, ko)| *ko).collect();
        let owned = self.tables.objects.iter().filter(|(_, row)| row.owner == Some(Owner::Kernel));
        let owned: BTreeSet<_> = owned.map(|(ko, _)| *ko).collect();
        for ko in services.symmetric_difference(&owned) {
            self.report(2, format!("{ko} is owned by the kernel or named as a service, not both"));
        }
    }

    /// Rules 3, 4, 6, 11: counts are those of their sources.
    fn counts(&mut self) {
        let sources = Sources::of(self.tables);
        for (&ko, row) in self.tables.objects.iter() {
            let (reachable, recognizable) = sources.objects.get(&ko).copied().unwrap_or_default();
            if (row.reachable, row.recognizable) != (reachable, recognizable) {
                let what = format!(
                    "{ko} counts {},{}, its sources give {reachable},{recognizable}",
                    row.reachable, row.recognizable
                );
                self.report(3, what);
            }
        }
        for (&kp, row) in self.tables.promises.iter() {
            let count = sources.promises.get(&kp).copied().unwrap_or_default();
            if row.count != count {
                self.report(4, format!("{kp} counts {}, its sources give {count}", row.count));
            }
        }
        for ko in sources.objects.keys().filter(|ko| !self.objects.contains(ko)).collect::<Vec<_>>() {
            self.report(6, format!("{ko} is referred to and does not exist"));
        }
        for kp in sources.promises.keys().filter(|kp| !self.promises.contains(kp)).collect::<Vec<_>>() {
            self.report(6, format!("{kp} is referred to and does not exist"));
        }
    }

    /// Rule 6: items of the run queue can be understood.
    fn queue(&mut self) {
        let tables = self.tables;
        for (position, item) in tables.run_queue.iter() {
            if let QueueItem::Unreadable(why) = item {
                self.report(6, format!("queue item {position} cannot be read: {why}"));
            }
        }
    }

    /// Rules 4 and 12: messages wait only on unresolved promises; deciders and subscribers have records.
    fn promises(&mut self) {
        let mut unresolved = BTreeSet::new();
        for (&kp, row) in self.tables.promises.iter() {
            let PromiseState::Unresolved { decider, subscribers } = &row.state else { continue };
            unresolved.insert(kp);
            let decider = match decider {
                Some(Decider::Endpoint(endpoint)) => Some(endpoint),
                Some(Decider::Kernel) | None => None,
            };
            for endpoint in decider.into_iter().chain(subscribers) {
                if !self.endpoints.contains(endpoint) {
                    self.report(12, format!("{kp} is decided or awaited by {endpoint}, which has no record"));
                }
            }
        }
        for (&(kp, position), item) in self.tables.promise_queue.iter() {
            if !unresolved.contains(&kp) || item.target != KRef::Promise(kp) {
                self.report(4, format!("message {position} waits on {kp}, which is not unresolved"));
            }
        }
    }

    /// Rule 5: nothing has a number that was not given out.
    fn counters(&mut self) {
        let next = |name: &str| {
            let row = self.tables.counters.iter().find(|(key, _)| ***key == *name);
            row.map_or(1, |(_, next)| *next)
        };
        let last = [
            ("object", self.objects.last().map(|ko| ko.0)),
            ("promise", self.promises.last().map(|kp| kp.0)),
            ("vat", self.tables.vats.iter().next_back().map(|(vat, _)| vat.0.into())),
            ("remote", self.tables.remotes.iter().next_back().map(|(rid, _)| rid.0.into())),
            ("subcluster", self.tables.subclusters.iter().next_back().map(|(id, _)| id.0)),
            ("run", self.tables.run_queue.iter().next_back().map(|(position, _)| *position)),
        ];
        let over: Vec<_> =
            last.into_iter().filter(|(name, last)| last.is_some_and(|last| last >= next(name))).collect();
        for (name, _) in over {
            self.report(5, format!("the last {name} has a number that was not given out"));
        }
    }

    /// Rules 7, 8, 9, 12: vats and what belongs to them.
    fn vats(&mut self) {
        let subclusters: BTreeSet<_> = self.tables.subclusters.iter().map(|(id, _)| *id).collect();
        let mut names = BTreeSet::new();
        for (&id, row) in self.tables.subclusters.iter() {
            let Some(name) = &row.system else { continue };
            if !names.insert(name) {
                self.report(7, format!("there are two system subclusters {name:?}"));
            }
            let heads = self.tables.vats.iter().filter(|(_, vat)| {
                vat.subcluster == id && vat.name == row.bootstrap && vat.phase != VatPhase::Terminated
            });
            if heads.count() != 1 {
                self.report(7, format!("system subcluster {name:?} ({id}) has no bootstrap vat"));
            }
        }
        let codes: BTreeSet<_> = self.tables.code.iter().map(|(hash, _)| hash.clone()).collect();
        let mut roots: BTreeMap<VatId, usize> = BTreeMap::new();
        for (&(endpoint, _), row) in self.tables.clist.iter() {
            if let (EndpointId::Vat(vat), true) = (endpoint, row.eref == ERef::Vat(VRef::ROOT)) {
                *roots.entry(vat).or_default() += 1;
            }
        }
        for (&vat, row) in self.tables.vats.iter() {
            if !codes.contains(&row.code) {
                self.report(12, format!("the program of {vat} is missing"));
            }
            let (lives, rooted) = match row.phase {
                VatPhase::Terminated => (false, false),
                VatPhase::Launching => (true, false),
                VatPhase::Starting | VatPhase::Running | VatPhase::Failed(_) => (true, true),
            };
            if lives && !subclusters.contains(&row.subcluster) {
                self.report(7, format!("{vat} belongs to {}, which does not exist", row.subcluster));
            }
            if rooted && roots.get(&vat) != Some(&1) {
                self.report(7, format!("{vat} has no root"));
            }
        }
        let stores: BTreeSet<_> = self.tables.vat_store.iter().map(|((vat, _), _)| *vat).collect();
        for vat in stores {
            if !self.endpoints.contains(&EndpointId::Vat(vat)) {
                self.report(9, format!("{vat} has a store and no record"));
            }
        }
        let bad_actions = self.tables.gc_actions.iter().filter(|((endpoint, kind, _), ())| {
            matches!(kind, GcKind::DropExport | GcKind::RetireExport | GcKind::RetireImport)
                && !self.endpoints.contains(endpoint)
        });
        let bad_actions: Vec<_> = bad_actions.map(|((endpoint, ..), ())| *endpoint).collect();
        for endpoint in bad_actions {
            self.report(10, format!("a GC action is for {endpoint}, which has no record"));
        }
    }

    /// Tables that mirror others.
    fn mirrors(&mut self) {
        let tables = self.tables;
        let clist: BTreeSet<_> =
            tables.clist.iter().map(|(&(endpoint, kref), row)| (endpoint, row.eref, kref)).collect();
        let by_eref: BTreeSet<_> =
            tables.clist_by_eref.iter().map(|(&(endpoint, eref), &kref)| (endpoint, eref, kref)).collect();
        let importers: BTreeSet<_> = tables.importers.iter().map(|(key, ())| *key).collect();
        let imports = tables.clist.iter().filter(|(_, row)| row.eref.side() == Side::Import);
        let imports: BTreeSet<_> =
            imports.filter_map(|(&(endpoint, kref), _)| Some((kref.object()?, endpoint))).collect();
        let decided: BTreeSet<_> = tables.promises_by_decider.iter().map(|(key, ())| *key).collect();
        let deciders: BTreeSet<_> = tables
            .promises
            .iter()
            .filter_map(|(&kp, row)| match row.state {
                PromiseState::Unresolved { decider, .. } => decider.map(|decider| (decider, kp)),
                PromiseState::Fulfilled(_) | PromiseState::Rejected(_) => None,
            })
            .collect();
        let run = tables.run_queue.iter().filter_map(|(&position, item)| match item {
            QueueItem::Send(item) => Some((item.result?, QueuePlace::Run(position))),
            QueueItem::Notify { .. } | QueueItem::Unreadable(_) => None,
        });
        let parked = tables.promise_queue.iter();
        let parked = parked.filter_map(|(&(kp, at), item)| Some((item.result?, QueuePlace::Parked(kp, at))));
        let carried: BTreeSet<_> = run.chain(parked).collect();
        let results: BTreeSet<_> = tables.queued_results.iter().map(|(key, ())| *key).collect();
        let reaps: BTreeSet<_> = tables.reaps.iter().map(|(&number, &endpoint)| (endpoint, number)).collect();
        let by_endpoint: BTreeSet<_> =
            tables.reaps_by_endpoint.iter().map(|(&endpoint, &number)| (endpoint, number)).collect();
        let ended = tables.vats.iter().filter(|(_, row)| row.phase == VatPhase::Terminated);
        let ended: BTreeSet<_> = ended.map(|(vat, _)| *vat).collect();
        let to_clean: BTreeSet<_> = tables.vats_to_clean.iter().map(|(vat, ())| *vat).collect();
        let by_peer: BTreeSet<_> = tables.remotes_by_peer.iter().map(|(peer, rid)| (*rid, peer)).collect();
        let peers: BTreeSet<_> = tables.remotes.iter().map(|(rid, row)| (*rid, &row.peer)).collect();
        for (name, agrees) in [
            ("clist_by_eref", clist == by_eref),
            ("importers", imports == importers),
            ("promises_by_decider", decided == deciders),
            ("queued_results", results == carried),
            ("reaps_by_endpoint", by_endpoint == reaps),
            ("vats_to_clean", to_clean == ended),
            ("remotes_by_peer", by_peer == peers),
            ("candidates", tables.candidates.iter().next().is_none()),
        ] {
            if !agrees {
                self.report(0, format!("{name} does not mirror what it should"));
            }
        }
    }
}

fn import_number(eref: ERef) -> Option<(RefKind, u64)> {
    match eref {
        ERef::Vat(VRef::Object(VObject::Import(number))) => Some((RefKind::Object, number)),
        ERef::Vat(VRef::Promise(Side::Import, number)) => Some((RefKind::Promise, number)),
        ERef::Remote(rref) if rref.side == Side::Import => Some((rref.kind, rref.index)),
        ERef::Vat(_) | ERef::Remote(_) => None,
    }
}

/// The table of 02 §7.1, summed up.
#[derive(Default)]
struct Sources {
    objects: BTreeMap<ObjectId, (u64, u64)>,
    promises: BTreeMap<PromiseId, u64>,
}

impl Sources {
    fn of(tables: &Tables) -> Self {
        let mut sources = Sources::default();
        for (&kp, row) in tables.promises.iter() {
            match &row.state {
                PromiseState::Unresolved { .. } => sources.reach(KRef::Promise(kp), 1),
                PromiseState::Fulfilled(value) | PromiseState::Rejected(value) => {
                    value.slots.iter().for_each(|&slot| sources.reach(slot, 1));
                }
            }
        }
        for (&(_, kref), row) in tables.clist.iter() {
            match kref {
                KRef::Promise(_) => sources.reach(kref, 1),
                KRef::Object(_) if row.eref.side() == Side::Export => {}
                KRef::Object(_) if row.reachable => sources.reach(kref, 1),
                KRef::Object(ko) => sources.objects.entry(ko).or_default().1 += 1,
            }
        }
        for (_, item) in tables.run_queue.iter() {
            match item {
                QueueItem::Send(item) => sources.message(item),
                QueueItem::Notify { promise, .. } => sources.reach(KRef::Promise(*promise), 1),
                QueueItem::Unreadable(_) => {}
            }
        }
        tables.promise_queue.iter().for_each(|(_, item)| sources.message(item));
        tables.pins.iter().for_each(|(&ko, &times)| sources.reach(KRef::Object(ko), times));
        tables.services.iter().for_each(|(_, &ko)| sources.reach(KRef::Object(ko), 1));
        for (&(kref, kind), &times) in tables.holds.iter() {
            match kind {
                HoldKind::Waiting | HoldKind::Handed => sources.reach(kref, times),
            }
        }
        for (_, grant) in tables.grants.iter().filter(|(_, grant)| !grant.revoked) {
            sources.reach(KRef::Object(grant.object), 1);
        }
        sources.roots(tables);
        sources
    }

    fn roots(&mut self, tables: &Tables) {
        let live: BTreeSet<_> = tables
            .vats
            .iter()
            .filter(|(_, row)| row.phase != VatPhase::Terminated)
            .map(|(vat, _)| EndpointId::Vat(*vat))
            .collect();
        for (&(endpoint, kref), row) in tables.clist.iter() {
            if row.eref == ERef::Vat(VRef::ROOT) && live.contains(&endpoint) {
                self.reach(kref, 1);
            }
        }
    }

    fn message(&mut self, item: &SendItem) {
        self.reach(item.target, 1);
        item.methargs.slots.iter().for_each(|&slot| self.reach(slot, 1));
        if let Some(kp) = item.result {
            self.reach(KRef::Promise(kp), 1);
        }
    }

    fn reach(&mut self, kref: KRef, times: u64) {
        match kref {
            KRef::Object(ko) => {
                let (reachable, recognizable) = self.objects.entry(ko).or_default();
                *reachable = reachable.saturating_add(times);
                *recognizable = recognizable.saturating_add(times);
            }
            KRef::Promise(kp) => {
                let count = self.promises.entry(kp).or_default();
                *count = count.saturating_add(times);
            }
        }
    }
}
