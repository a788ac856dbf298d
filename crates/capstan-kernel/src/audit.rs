//! The audit: everything recounted from scratch (01 §8). Three callers: debug builds after every transaction, the
//! simulator, `fsck`.
//!
//! **Invariant:** shares no code with what it checks.

mod problem;

pub use problem::{Invariant, Problem};

use capstan_model::id::{EndpointId, KRef, ObjectId, PromiseId, SubclusterId, VatId};
use capstan_model::refs::{ERef, RefKind, Side, VObject, VRef};
use capstan_store::schema::{
    Decider, HoldKind, Owner, PromiseState, QueueItem, QueuePlace, SendItem, Tables, VatPhase,
};
use std::collections::{BTreeMap, BTreeSet};

/// Recounts everything and returns what is wrong.
pub fn audit(tables: &Tables) -> Vec<Problem> {
    let mut audit = Audit::new(tables);
    audit.clists();
    audit.owners();
    audit.services();
    audit.counts();
    audit.queue();
    audit.references();
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

    fn report(&mut self, invariant: Invariant, place: impl ToString, what: impl Into<String>) {
        self.problems.push(Problem { invariant, place: place.to_string(), what: what.into() });
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
            let place = format!("c-list entry of {endpoint} for {kref}");
            if !self.exists(kref) {
                self.report(Invariant::Clists, &place, "the object or promise does not exist");
            }
            if !self.endpoints.contains(&endpoint) {
                self.report(Invariant::References, &place, format!("{endpoint} has no record"));
            }
            if !names.insert((endpoint, row.eref)) {
                let what = format!("{} is its name for something else as well", row.eref);
                self.report(Invariant::Clists, &place, what);
            }
            let of_kind = match (endpoint, row.eref) {
                (EndpointId::Vat(_), ERef::Vat(vref)) => vref.is_object() == kref.object().is_some(),
                (EndpointId::Remote(_), ERef::Remote(rref)) => {
                    (rref.kind == RefKind::Object) == kref.object().is_some()
                }
                (EndpointId::Vat(_), ERef::Remote(_)) | (EndpointId::Remote(_), ERef::Vat(_)) => false,
            };
            if !of_kind {
                let what = format!("the name {} is of another kind", row.eref);
                self.report(Invariant::Clists, &place, what);
            }
            let (objects, promises) = counters.get(&endpoint).copied().unwrap_or((u64::MAX, u64::MAX));
            let spent = match import_number(row.eref) {
                Some((RefKind::Object, number)) => number < objects,
                Some((RefKind::Promise, number)) => number < promises,
                None => true,
            };
            if !spent {
                let what = format!("the name {} was not given out yet", row.eref);
                self.report(Invariant::Counters, &place, what);
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
                self.report(Invariant::Owners, ko, format!("{other} and {endpoint} both export it"));
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
                let what = format!("owned by {}, exported by {}", name(owner), name(exporter));
                self.report(Invariant::Owners, ko, what);
            }
        }
    }

    /// Rule 2, for the kernel itself: what it owns are its services.
    fn services(&mut self) {
        let tables = self.tables;
        let services: BTreeSet<_> = tables.services.iter().map(|(_, ko)| *ko).collect();
        let owned = tables.objects.iter().filter(|(_, row)| row.owner == Some(Owner::Kernel));
        let owned: BTreeSet<_> = owned.map(|(ko, _)| *ko).collect();
        for ko in services.symmetric_difference(&owned) {
            if !self.objects.contains(ko) {
                continue; // reported as a reference to nothing
            }
            self.report(Invariant::Owners, ko, "it is owned by the kernel or named as a service, not both");
        }
    }

    /// Rules 3, 4, 11: counts are those of their sources.
    fn counts(&mut self) {
        let sources = Sources::of(self.tables);
        for (&ko, row) in self.tables.objects.iter() {
            let (reachable, recognizable) = sources.objects.get(&ko).copied().unwrap_or_default();
            if (row.reachable, row.recognizable) != (reachable, recognizable) {
                let what = format!(
                    "counts {},{}, its sources give {reachable},{recognizable}",
                    row.reachable, row.recognizable
                );
                self.report(Invariant::ObjectCounts, ko, what);
            }
        }
        for (&kp, row) in self.tables.promises.iter() {
            let count = sources.promises.get(&kp).copied().unwrap_or_default();
            if row.count != count {
                let what = format!("counts {}, its sources give {count}", row.count);
                self.report(Invariant::Promises, kp, what);
            }
        }
    }

    /// Rules 4, 6, 11, 12: what rows outside the c-lists name exists.
    fn references(&mut self) {
        let tables = self.tables;
        for (position, item) in tables.run_queue.iter() {
            let place = || format!("queue item {position}");
            match item {
                QueueItem::Send(item) => self.names_of(item, place),
                QueueItem::Notify { promise, .. } => {
                    self.needs(KRef::Promise(*promise), Invariant::Queues, place);
                }
                QueueItem::Unreadable(_) => {}
            }
        }
        for ((kp, position), item) in tables.promise_queue.iter() {
            self.names_of(item, || format!("message {position} parked on {kp}"));
        }
        for (kp, row) in tables.promises.iter() {
            if let PromiseState::Fulfilled(value) | PromiseState::Rejected(value) = &row.state {
                for &slot in &value.slots {
                    self.needs(slot, Invariant::Promises, || format!("value of {kp}"));
                }
            }
        }
        for (&ko, &times) in tables.pins.iter() {
            self.needs(ko.into(), Invariant::Pins, || format!("pin of {ko}"));
            if times == 0 {
                self.report(Invariant::Pins, format!("pin of {ko}"), "it is pinned no times");
            }
        }
        for (name, &ko) in tables.services.iter() {
            self.needs(ko.into(), Invariant::References, || format!("service {name}"));
        }
        for (&(kref, _), _) in tables.holds.iter() {
            self.needs(kref, Invariant::References, || format!("hold of {kref}"));
        }
        for (grant, row) in tables.grants.iter().filter(|(_, row)| !row.revoked) {
            self.needs(row.object.into(), Invariant::References, || format!("grant {grant}"));
        }
        for (_, row) in tables.redemptions.iter() {
            let place = || format!("redemption that settles {}", row.promise);
            self.needs(row.promise.into(), Invariant::References, place);
            self.needs_endpoint(row.remote.into(), place);
        }
        let remotes: BTreeSet<_> = tables.outbox.iter().map(|((rid, _), _)| *rid).collect();
        for rid in remotes {
            self.needs_endpoint(rid.into(), || format!("outbox of {rid}"));
        }
        let mut bytes: BTreeMap<_, u64> = BTreeMap::new();
        for ((rid, _), entry) in tables.outbox.iter() {
            let sum = bytes.entry(*rid).or_default();
            *sum = sum.saturating_add(entry.text.len() as u64);
        }
        let of_peer = tables.remotes.iter().map(|(rid, row)| (&row.peer, bytes.get(rid).copied()));
        let of_peer: BTreeMap<_, _> = of_peer.collect();
        for (peer, row) in tables.sessions.iter() {
            let bytes = of_peer.get(peer).copied().flatten().unwrap_or(0);
            if bytes != row.outbox_bytes {
                let what = format!("{} bytes are noted, there are {bytes}", row.outbox_bytes);
                self.report(Invariant::Counters, format!("outbox for {peer}"), what);
            }
        }
    }

    fn names_of(&mut self, item: &SendItem, place: impl Fn() -> String) {
        let result = item.result.map(KRef::Promise);
        for &kref in [item.target].iter().chain(&item.methargs.slots).chain(&result) {
            self.needs(kref, Invariant::Queues, &place);
        }
    }

    fn needs(&mut self, kref: KRef, invariant: Invariant, place: impl Fn() -> String) {
        if !self.exists(kref) {
            self.report(invariant, place(), format!("{kref} does not exist"));
        }
    }

    fn needs_endpoint(&mut self, endpoint: EndpointId, place: impl Fn() -> String) {
        if !self.endpoints.contains(&endpoint) {
            self.report(Invariant::References, place(), format!("{endpoint} has no record"));
        }
    }

    /// Rule 6: items of the run queue can be understood.
    fn queue(&mut self) {
        let tables = self.tables;
        for (position, item) in tables.run_queue.iter() {
            if let QueueItem::Unreadable(why) = item {
                let place = format!("queue item {position}");
                self.report(Invariant::Queues, place, format!("it cannot be read: {why}"));
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
                self.needs_endpoint(*endpoint, || format!("decider or subscriber of {kp}"));
            }
        }
        for (&(kp, position), item) in self.tables.promise_queue.iter() {
            if !unresolved.contains(&kp) || item.target != KRef::Promise(kp) {
                let place = format!("message {position} parked on {kp}");
                self.report(Invariant::Promises, place, "it waits on something that is not unresolved");
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
            ("parked", self.tables.promise_queue.iter().map(|((_, position), _)| *position).max()),
            ("relay", self.tables.relays.iter().next_back().map(|(number, _)| *number)),
            ("reap", self.tables.reaps.iter().next_back().map(|(number, _)| *number)),
        ];
        let over: Vec<_> =
            last.into_iter().filter(|(name, last)| last.is_some_and(|last| last >= next(name))).collect();
        for (name, _) in over {
            let what = "the last one has a number that was not given out yet";
            self.report(Invariant::Counters, format!("counter {name}"), what);
        }
    }

    /// Rules 7, 8, 9, 10: vats and what belongs to them.
    fn vats(&mut self) {
        let tables = self.tables;
        let mut system = BTreeSet::new();
        for (&id, row) in tables.subclusters.iter() {
            let Some(name) = &row.system else { continue };
            if !system.insert(name) {
                self.report(Invariant::Vats, id, format!("another system subcluster is called {name:?} too"));
            }
            let heads = tables.vats.iter().filter(|(_, vat)| {
                vat.subcluster == id && vat.name == row.bootstrap && vat.phase != VatPhase::Terminated
            });
            if heads.count() != 1 {
                self.report(Invariant::Vats, id, format!("system subcluster {name:?} has no bootstrap vat"));
            }
        }
        let subclusters: BTreeSet<_> = tables.subclusters.iter().map(|(id, _)| *id).collect();
        let codes: BTreeSet<_> = tables.code.iter().map(|(hash, _)| hash.clone()).collect();
        let mut roots: BTreeSet<VatId> = BTreeSet::new();
        for (&(endpoint, _), row) in tables.clist.iter() {
            if let (EndpointId::Vat(vat), true) = (endpoint, row.eref == ERef::Vat(VRef::ROOT)) {
                roots.insert(vat);
            }
        }
        let mut inhabited: BTreeSet<SubclusterId> = BTreeSet::new();
        let mut names = BTreeSet::new();
        let mut terminated: BTreeSet<EndpointId> = BTreeSet::new();
        for (&vat, row) in tables.vats.iter() {
            let rooted = match row.phase {
                VatPhase::Terminated => {
                    terminated.insert(vat.into());
                    continue;
                }
                VatPhase::Launching => false,
                VatPhase::Starting | VatPhase::Running | VatPhase::Failed(_) => true,
            };
            inhabited.insert(row.subcluster);
            if !codes.contains(&row.code) {
                self.report(Invariant::Vats, vat, "its program is missing");
            }
            if !subclusters.contains(&row.subcluster) {
                let what = format!("it belongs to {}, which does not exist", row.subcluster);
                self.report(Invariant::Vats, vat, what);
            }
            if !names.insert((row.subcluster, row.name.clone())) {
                let what = format!("another vat of {} is called {:?} too", row.subcluster, row.name);
                self.report(Invariant::Vats, vat, what);
            }
            if rooted && !roots.contains(&vat) {
                self.report(Invariant::Vats, vat, "it has no root");
            }
        }
        for (&id, row) in tables.subclusters.iter() {
            if !row.launching && !inhabited.contains(&id) {
                self.report(Invariant::Vats, id, "it has no vats");
            }
        }
        self.terminated(&terminated);
        let stores: BTreeSet<_> = tables.vat_store.iter().map(|((vat, _), _)| *vat).collect();
        for vat in stores {
            if !self.endpoints.contains(&vat.into()) {
                self.report(Invariant::VatStores, format!("store of {vat}"), format!("{vat} has no record"));
            }
        }
        for ((endpoint, kind, ko), ()) in tables.gc_actions.iter() {
            if !self.endpoints.contains(endpoint) {
                let place = format!("{kind:?} of {ko} for {endpoint}");
                self.report(Invariant::GcActions, place, format!("{endpoint} has no record"));
            }
        }
    }

    /// Rule 8: of a terminated vat only what is to be cleaned up is left.
    fn terminated(&mut self, terminated: &BTreeSet<EndpointId>) {
        let tables = self.tables;
        for (kp, row) in tables.promises.iter() {
            let PromiseState::Unresolved { decider: Some(Decider::Endpoint(by)), .. } = &row.state else {
                continue;
            };
            if terminated.contains(by) {
                self.report(Invariant::Terminated, by, format!("it is terminated and decides {kp}"));
            }
        }
        for ((endpoint, ..), ()) in tables.gc_actions.iter() {
            if terminated.contains(endpoint) {
                self.report(Invariant::Terminated, endpoint, "it is terminated and has a GC action");
            }
        }
        for (_, endpoint) in tables.reaps.iter() {
            if terminated.contains(endpoint) {
                self.report(Invariant::Terminated, endpoint, "it is terminated and is to collect garbage");
            }
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
        let by_hash: BTreeSet<_> =
            tables.grants_by_hash.iter().map(|(hash, grant)| (*grant, *hash)).collect();
        let hashes: BTreeSet<_> =
            tables.grants.iter().map(|(grant, row)| (*grant, row.secret_hash)).collect();
        let by_subcluster: BTreeSet<_> =
            tables.subcluster_vats.iter().map(|((id, vat), ())| (*vat, Some(*id))).collect();
        let cleaned: BTreeSet<_> = tables.vats_to_clean.iter().map(|(vat, ())| (*vat, None)).collect();
        let vats: BTreeSet<_> = tables
            .vats
            .iter()
            .map(|(vat, row)| (*vat, (row.phase != VatPhase::Terminated).then_some(row.subcluster)))
            .collect();
        for (name, agrees) in [
            ("clist_by_eref", clist == by_eref),
            ("importers", imports == importers),
            ("promises_by_decider", decided == deciders),
            ("queued_results", results == carried),
            ("reaps_by_endpoint", by_endpoint == reaps),
            ("vats_to_clean", to_clean == ended),
            ("remotes_by_peer", by_peer == peers),
            ("grants_by_hash", by_hash == hashes),
            ("subcluster_vats, vats_to_clean", vats == &by_subcluster | &cleaned),
            ("candidates", tables.candidates.iter().next().is_none()),
        ] {
            if !agrees {
                self.report(
                    Invariant::File,
                    format!("table {name}"),
                    "it does not mirror its table, or two rows there are alike",
                );
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
