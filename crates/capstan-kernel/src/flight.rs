//! What is under way in this process: deliveries in flight, lanes of items that wait for a vat, requests that wait
//! for more than one transaction.
//!
//! All of it is volatile and rebuilt from nothing at start: the run queue keeps every item until its crank is
//! complete, so whatever is lost here is merely found again.

use crate::collection::Collection;
use crate::input::RequestId;
use capstan_model::id::{KRef, ObjectId, PromiseId, RemoteId, SubclusterId, VatId};
use capstan_model::refs::{RefKind, VRef};
use capstan_model::vat::{DeliveryId, VatIncarnation};
use capstan_store::schema::{GcKind, VatRow};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Everything volatile but the channels to peers.
#[derive(Debug, Default)]
pub(crate) struct Volatile {
    /// Per vat: what is in flight and what waits.
    pub(crate) lanes: BTreeMap<VatId, Lane>,
    /// Per peer whose window is full: run-queue positions that wait for it to open, oldest first; never empty.
    pub(crate) blocked: BTreeMap<RemoteId, VecDeque<u64>>,
    /// Vats that may have become able to take a delivery.
    pub(crate) ready: BTreeSet<VatId>,
    /// Vats that wait for an asynchronous crank (02 §6): what they began themselves has come due.
    pub(crate) woken: BTreeSet<VatId>,
    /// Run-queue positions to look at again, before anything new.
    pub(crate) recheck: VecDeque<u64>,
    /// The first run-queue position never looked at.
    pub(crate) cursor: u64,
    /// The last delivery number used.
    pub(crate) deliveries: u64,
    /// Per kernel service: run-queue positions that wait for a call of it to end, oldest first.
    pub(crate) service_lanes: BTreeMap<Arc<str>, VecDeque<u64>>,
    /// Launches in progress.
    pub(crate) launches: BTreeMap<SubclusterId, Launch>,
    /// Who waits for a vat to be up again.
    pub(crate) restarts: BTreeMap<VatId, Vec<RequestId>>,
    /// Collections in progress.
    pub(crate) collections: Vec<Collection>,
    /// Vats whose worker died, with the item it died on (none: while idle); forgiven by the next success.
    pub(crate) deaths: BTreeMap<VatId, Option<u64>>,
    /// Terminated vats whose clean-up failed: not tried again in this process, or nothing else would be done.
    pub(crate) uncleanable: BTreeSet<VatId>,
}

/// One vat's traffic.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// What the vat is busy with; empty: it is idle.
    pub(crate) flight: VecDeque<InFlight>,
    /// Run-queue positions that wait for it, oldest first.
    pub(crate) waiting: VecDeque<u64>,
}

/// One delivery handed to a vat and not yet answered.
#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    pub(crate) id: DeliveryId,
    pub(crate) incarnation: VatIncarnation,
    pub(crate) work: Work,
    /// Every name in the delivery; entered into the c-list at completion where it is missing.
    pub(crate) mentions: Vec<(KRef, VRef)>,
}

/// What a delivery is about, in kernel terms.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// The message at this run-queue position, with the result as the vat was told.
    Message { position: u64, result: Option<(PromiseId, VRef)> },
    /// The notify at this run-queue position.
    Notify { position: u64, members: Vec<PromiseId> },
    /// These GC actions.
    Gc { kind: GcKind, objects: Vec<ObjectId> },
    /// The vat's reap.
    Reap,
    /// An asynchronous crank: nothing of the store.
    Wake,
}

impl Work {
    /// Returns the run-queue position of the item, if it came from there.
    pub(crate) fn position(&self) -> Option<u64> {
        match self {
            Work::Message { position, .. } | Work::Notify { position, .. } => Some(*position),
            Work::Gc { .. } | Work::Reap | Work::Wake => None,
        }
    }
}

/// A launch in progress.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) request: RequestId,
    /// Kernel services to be given to `bootstrap`.
    pub(crate) services: BTreeSet<Arc<str>>,
    /// Vats not yet up.
    pub(crate) starting: BTreeSet<VatId>,
    /// The bootstrap vat.
    pub(crate) bootstrap: VatId,
    /// Skip `bootstrap` if the root lacks it.
    pub(crate) optional: bool,
    /// Whether the bootstrap vat's root has a method `bootstrap`.
    pub(crate) has_bootstrap: bool,
    /// The result of `bootstrap`, once it was called.
    pub(crate) result: Option<PromiseId>,
}

/// Names chosen for a vat ahead of the store, while one batch is put together.
#[derive(Debug)]
pub(crate) struct Staged {
    next_object: u64,
    next_promise: u64,
    names: BTreeMap<KRef, VRef>,
    gone: BTreeSet<KRef>,
}

impl Staged {
    pub(crate) fn new(row: &VatRow) -> Self {
        Staged {
            next_object: row.next_object,
            next_promise: row.next_promise,
            names: BTreeMap::new(),
            gone: BTreeSet::new(),
        }
    }

    /// Returns the vat's name for `kref`: as staged, else as stored, else a new one.
    pub(crate) fn name(&mut self, kref: KRef, stored: Option<VRef>) -> VRef {
        if let Some(vref) = self.names.get(&kref) {
            return *vref;
        }
        if let Some(vref) = stored.filter(|_| !self.gone.contains(&kref)) {
            return vref;
        }
        let (kind, next) = match kref {
            KRef::Object(_) => (RefKind::Object, &mut self.next_object),
            KRef::Promise(_) => (RefKind::Promise, &mut self.next_promise),
        };
        let vref = crate::clist::vat_import(kind, *next);
        *next = next.saturating_add(1);
        self.names.insert(kref, vref);
        vref
    }

    /// Notes that an earlier delivery of the batch retires the vat's name for `kref`.
    pub(crate) fn retire(&mut self, kref: KRef) {
        self.names.remove(&kref);
        self.gone.insert(kref);
    }

    /// Whether an earlier delivery of the batch retires the vat's stored name for `kref`, without a new one since.
    pub(crate) fn is_retired(&self, kref: KRef) -> bool {
        self.gone.contains(&kref)
    }
}

impl Volatile {
    /// Who waits for more than one transaction, except for promises.
    pub(crate) fn requests(self) -> impl Iterator<Item = RequestId> {
        let launches = self.launches.into_values().map(|launch| launch.request);
        let collections = self.collections.into_iter().map(|collection| collection.request());
        launches.chain(self.restarts.into_values().flatten()).chain(collections)
    }

    /// Forgets what is in flight to a vat: its items wait again, to be looked at before anything new.
    pub(crate) fn ground(&mut self, vat: VatId) {
        if let Some(lane) = self.lanes.remove(&vat) {
            let flying = lane.flight.iter().filter_map(|flight| flight.work.position());
            self.recheck.extend(flying.chain(lane.waiting.iter().copied()));
        }
        self.ready.remove(&vat);
        self.woken.remove(&vat);
    }

    /// Whether the vat has nothing in flight.
    pub(crate) fn is_idle(&self, vat: VatId) -> bool {
        self.lanes.get(&vat).is_none_or(|lane| lane.flight.is_empty())
    }

    /// Draws the name of a delivery.
    pub(crate) fn next_delivery(&mut self) -> DeliveryId {
        self.deliveries = self.deliveries.saturating_add(1);
        DeliveryId(self.deliveries)
    }
}
