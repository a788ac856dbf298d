//! Every table, its key and its row (01 §8, 02 §1, 03 §0.3).

use crate::overlay::{Rows, Table};
use capstan_model::capdata::CapData;
use capstan_model::id::{EndpointId, GrantId, KRef, ObjectId, PromiseId, RemoteId, SubclusterId, VatId};
use capstan_model::peer::{Digest, Epoch, Hint, Incarnation, Millis, PeerId, Seq};
use capstan_model::refs::{ERef, Side};
use capstan_model::vat::{Endowments, VatCode, VatIncarnation, VatLimits};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Who answers for an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Owner {
    /// A vat or a remote.
    Endpoint(EndpointId),
    /// The kernel itself: a service.
    Kernel,
}

/// An object. Its counts are exactly those of 02 §7.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRow {
    /// Where it lives; `None`: an orphan.
    pub owner: Option<Owner>,
    /// How many can send to it.
    pub reachable: u64,
    /// How many can recognise it; never less than `reachable`.
    pub recognizable: u64,
    /// Refuses every delivery, for good.
    pub revoked: bool,
}

/// Who may settle a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Decider {
    /// A vat or a remote.
    Endpoint(EndpointId),
    /// The kernel: a service call in progress.
    Kernel,
}

/// A promise's one transition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PromiseState {
    /// Not yet.
    Unresolved {
        /// Who may settle it; nobody yet for the result of a host's send.
        decider: Option<Decider>,
        /// Who is told.
        subscribers: BTreeSet<EndpointId>,
    },
    /// With a value.
    Fulfilled(CapData<KRef>),
    /// With a reason.
    Rejected(CapData<KRef>),
}

/// A promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromiseRow {
    /// Where it stands.
    pub state: PromiseState,
    /// How many references there are (02 §7.1).
    pub count: u64,
}

/// One c-list entry, keyed by endpoint and kref.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClistRow {
    /// The endpoint's own name.
    pub eref: ERef,
    /// For an object: whether the endpoint can still send to it. Always set for a promise.
    pub reachable: bool,
    /// For a remote: the last outbound number that mentioned it (03 E.3).
    pub last_mention: Seq,
}

/// One item of the run queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueueItem {
    /// Deliver a message.
    Send(SendItem),
    /// Tell an endpoint of a settled promise.
    Notify {
        /// Whom.
        endpoint: EndpointId,
        /// Of which.
        promise: PromiseId,
    },
    /// What the disk holds under this number cannot be understood: this is why. Only ever read, and set aside by
    /// the kernel when it comes up, so that one damaged row does not keep a store closed (02 §2).
    Unreadable(Arc<str>),
}

/// Where a message waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QueuePlace {
    /// At this number of the run queue.
    Run(u64),
    /// At this number of the promise's queue.
    Parked(PromiseId, u64),
}

/// A message on its way to `target`; also what is parked on a promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendItem {
    /// Whom.
    pub target: KRef,
    /// What.
    pub methargs: CapData<KRef>,
    /// Where the answer goes.
    pub result: Option<PromiseId>,
}

/// The kinds of GC action, in the order in which they are performed (02 §7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GcKind {
    /// Tell the owner that nobody reaches it.
    DropExport,
    /// Tell the owner that nobody recognises it.
    RetireExport,
    /// Tell an importer that it is gone.
    RetireImport,
}

/// Where a vat stands in its life (01 §6.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum VatPhase {
    /// Being started for the first time, as part of a launch.
    Launching,
    /// Starting again, after a restart of the vat or of the kernel.
    Starting,
    /// Takes deliveries.
    Running,
    /// Could not be started; keeps its state and may be restarted.
    Failed(String),
    /// Gone; its c-list is being cleaned up.
    Terminated,
}

/// A vat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VatRow {
    /// Where it belongs.
    pub subcluster: SubclusterId,
    /// Its name in its subcluster.
    pub name: Arc<str>,
    /// Which code it runs.
    pub code: CodeHash,
    /// `parameters`, JSON text.
    pub parameters: Option<Arc<str>>,
    /// What it may use.
    pub limits: VatLimits,
    /// What it is given.
    pub endowments: Endowments,
    /// Where it stands.
    pub phase: VatPhase,
    /// The present run.
    pub incarnation: VatIncarnation,
    /// The next `o-N`.
    pub next_object: u64,
    /// The next `p-N`.
    pub next_promise: u64,
    /// Deliveries since it last collected garbage.
    pub deliveries: u64,
}

/// SHA-256 or another content hash of code, hexadecimal.
pub type CodeHash = Arc<str>;

/// A subcluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubclusterRow {
    /// The name of its bootstrap vat.
    pub bootstrap: Arc<str>,
    /// The configuration it was launched from, JSON text.
    pub config: Arc<str>,
    /// Still being launched: undone after a crash.
    pub launching: bool,
    /// Its name, if it is a system subcluster.
    pub system: Option<Arc<str>>,
}

/// The durable endpoint record for one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteRow {
    /// Whom it stands for.
    pub peer: PeerId,
    /// Where the peer might be dialled, most useful first.
    pub hints: Vec<Hint>,
    /// The next `ro-N`; never goes back.
    pub next_object: u64,
    /// The next `rp-N`; never goes back.
    pub next_promise: u64,
    /// Intentionally closed by the user.
    pub closed: bool,
    /// How many restarts of the peer were seen.
    pub restarts_seen: u64,
}

/// The sequence state toward one peer: one session at a time (law L8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// The present session's epoch.
    pub epoch: Epoch,
    /// The oldest epoch in which an entry now in the outbox was offered.
    pub base: Epoch,
    /// First unacknowledged number; 1 when nothing was ever acknowledged.
    pub una: Seq,
    /// Last number assigned.
    pub sent: Seq,
    /// Digest of the outgoing frames `1..una`, i.e. up to `una - 1`.
    pub una_digest: Digest,
    /// Last contiguous number received.
    pub recv: Seq,
    /// Digest of the incoming frames `1..=recv`.
    pub recv_digest: Digest,
    /// Whose life and which epoch: the last confirmed session that was left. Survives forgetting.
    pub left: Option<(Incarnation, Epoch)>,
    /// Recorded or reset by a classic exchange.
    pub classic_born: bool,
    /// Bytes of text in the outbox.
    pub outbox_bytes: u64,
}

/// One frame not yet acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// The exact text that was or will be sent.
    pub text: Arc<str>,
    /// The digest of the outgoing frames up to and including this one.
    pub digest: Digest,
    /// Promises to retire from the peer's c-list when this is acknowledged (03 E-10).
    pub retires: Vec<PromiseId>,
}

/// The last incarnation observed for a peer, with or without a remote (03 S2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIncarnationRow {
    /// Which life. `None`: we hold no record of its life (nascent) though the epoch is remembered.
    pub incarnation: Option<Incarnation>,
    /// When it was last changed.
    pub seen: Millis,
}

/// A relay by which kernels may be reached (03 A-35).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayRow {
    /// Its address.
    pub address: Hint,
    /// When it was last named to us; 0: unknown.
    pub last_seen: Millis,
    /// Given by the operator, rather than learned.
    pub bootstrap: bool,
}

/// A redemption in flight at a peer: settles `promise`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedemptionRow {
    /// Asked whom.
    pub remote: RemoteId,
    /// Settled, as decider kernel, by the answer.
    pub promise: PromiseId,
    /// Rejected then.
    pub deadline: Millis,
}

/// The terms of one issued `ocap:` URL (design §5): a root of its object until revoked or expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRow {
    /// SHA-256 of the secret in the URL.
    pub secret_hash: [u8; 32],
    /// What it designates.
    pub object: ObjectId,
    /// When it was issued.
    pub issued: Millis,
    /// When it was last redeemed.
    pub last_used: Option<Millis>,
    /// When it ends by itself.
    pub expires: Option<Millis>,
    /// How many redemptions are left.
    pub uses_left: Option<u64>,
    /// The grant it was derived from.
    pub parent: Option<GrantId>,
    /// Ended by the user.
    pub revoked: bool,
}

/// Something that could not be processed, set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterRow {
    /// When.
    pub at: Millis,
    /// What, as text for people.
    pub item: String,
    /// Why.
    pub reason: String,
}

/// A kernel service that code of this process answers for (02 §10.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandlerRow {
    /// Given to system subclusters only.
    pub system_only: bool,
    /// What its code refers to, held as long as it is registered.
    pub holds: Option<ObjectId>,
    /// How many of its calls are in progress.
    pub calls: u64,
}

/// A call of a kernel service, handed out and not yet answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCallRow {
    /// Which object was called.
    pub object: ObjectId,
    /// The name of its service.
    pub service: Arc<str>,
    /// Settled, as decider kernel, by the answer.
    pub result: Option<PromiseId>,
    /// What the call names, each held for its duration.
    pub slots: Vec<KRef>,
}

/// Why the control surface holds a reference (02 §12.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HoldKind {
    /// Somebody in this process waits for the promise, or serves a call that names the thing; void after a crash.
    Waiting,
    /// Handed out in a result; kept until released by `gc`.
    Handed,
}

macro_rules! tables {
    ($( $(#[$doc:meta])* $table:ident $field:ident $name:literal $durable:literal ($key:ty) => $row:ty; )*) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub enum $table {}

            impl Table for $table {
                const NAME: &'static str = $name;
                const DURABLE: bool = $durable;
                type Key = $key;
                type Row = $row;
                fn of(tables: &Tables) -> &Rows<Self> { &tables.$field }
                fn of_mut(tables: &mut Tables) -> &mut Rows<Self> { &mut tables.$field }
                fn undo(key: $key, before: Option<$row>, dirtied: bool) -> Undo {
                    Undo::$table(key, before, dirtied)
                }
            }
        )*

        /// All tables of one kernel.
        #[derive(Debug, Default)]
        pub struct Tables {
            $( $(#[$doc])* pub $field: Rows<$table>, )*
        }

        /// The net difference of a batch: for each changed key its new row, or `None` where it was removed.
        /// Tables that are not durable are always empty here.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct ChangeSet {
            $( $(#[$doc])* pub $field: BTreeMap<$key, Option<$row>>, )*
        }

        /// How to undo one write: table, key, what was there, whether this write made the key dirty.
        #[doc(hidden)]
        #[derive(Debug)]
        #[allow(missing_docs, reason = "one variant a table, named after it")]
        pub enum Undo {
            $( $table($key, Option<$row>, bool), )*
        }

        impl Tables {
            pub(crate) fn revert(&mut self, undo: Undo) {
                match undo {
                    $( Undo::$table(key, before, dirtied) => self.$field.revert(key, before, dirtied), )*
                }
            }

            pub(crate) fn take_changes(&mut self) -> ChangeSet {
                ChangeSet { $( $field: self.$field.take_changes(), )* }
            }

            /// Applies a batch, as a backend does.
            pub fn apply(&mut self, changes: &ChangeSet) {
                $( self.$field.apply(&changes.$field); )*
            }

            /// All durable rows, as the change that would make them out of nothing.
            pub fn snapshot(&self) -> ChangeSet {
                ChangeSet { $( $field: self.$field.snapshot(), )* }
            }
        }

        impl crate::overlay::Tx<'_> {
            /// Removes every row of every table.
            pub fn delete_everything(&mut self) {
                $( self.delete_all::<$table>(); )*
            }
        }

        impl ChangeSet {
            /// Whether nothing changed.
            pub fn is_empty(&self) -> bool {
                true $( && self.$field.is_empty() )*
            }

            /// How many rows change.
            pub fn len(&self) -> usize {
                0 $( + self.$field.len() )*
            }

            /// Adds the changes of a later batch: for a key in both, the later row stands.
            pub fn merge(&mut self, later: ChangeSet) {
                $( self.$field.extend(later.$field); )*
            }
        }
    };
}

tables! {
    /// Texts by key: `incarnation`, `keySeed`, `peerId`, `lastActiveTime`, …
    Meta meta "meta" true (Arc<str>) => Arc<str>;
    /// Number dispensers by name: `vat`, `remote`, `subcluster`, `object`, `promise`, `grant`, `run`, …: the
    /// next number to give out. None ever goes back.
    Counters counters "counter" true (Arc<str>) => u64;
    /// Objects.
    Objects objects "objects" true (ObjectId) => ObjectRow;
    /// Promises.
    Promises promises "promises" true (PromiseId) => PromiseRow;
    /// C-lists, by the kernel's name.
    Clist clist "clist" true ((EndpointId, KRef)) => ClistRow;
    /// C-lists, by the endpoint's name: rebuilt at load, always the mirror image of `Clist`.
    ClistByEref clist_by_eref "clist_by_eref" false ((EndpointId, ERef)) => KRef;
    /// Which endpoints have imported an object. Rebuilt at load.
    Importers importers "importers" false ((ObjectId, EndpointId)) => ();
    /// The run queue, oldest first.
    RunQueue run_queue "queue" true (u64) => QueueItem;
    /// Messages parked on unresolved promises, oldest first.
    PromiseQueue promise_queue "promise_queue" true ((PromiseId, u64)) => SendItem;
    /// Messages of either queue by the promise for their answer. Rebuilt at load.
    QueuedResults queued_results "queued_results" false ((PromiseId, QueuePlace)) => ();
    /// Promises by decider. Rebuilt at load.
    PromisesByDecider promises_by_decider "promises_by_decider" false ((Decider, PromiseId)) => ();
    /// GC work.
    GcActions gc_actions "gc_action" true ((EndpointId, GcKind, ObjectId)) => ();
    /// Endpoints to be asked to collect garbage, in the order asked: number to endpoint.
    Reaps reaps "reap" true (u64) => EndpointId;
    /// Reaps by endpoint. Rebuilt at load.
    ReapsByEndpoint reaps_by_endpoint "reaps_by_endpoint" false (EndpointId) => u64;
    /// Endpoints that were given GC work which work selection has not looked at. At load: all that have any.
    GcDue gc_due "gc_due" false (EndpointId) => ();
    /// Vats, terminated ones included until they are cleaned up.
    Vats vats "vat" true (VatId) => VatRow;
    /// Terminated vats: what they left is still to be cleaned up. Rebuilt at load.
    VatsToClean vats_to_clean "vats_to_clean" false (VatId) => ();
    /// Vats that are not terminated, by subcluster. Rebuilt at load.
    SubclusterVats subcluster_vats "subcluster_vats" false ((SubclusterId, VatId)) => ();
    /// Programs by content.
    Code code "code" true (CodeHash) => VatCode;
    /// Vats' own durable stores.
    VatStore vat_store "vat_store" true ((VatId, Arc<str>)) => Arc<str>;
    /// Subclusters.
    Subclusters subclusters "subcluster" true (SubclusterId) => SubclusterRow;
    /// Kernel services by name: their objects.
    Services services "service" true (Arc<str>) => ObjectId;
    /// Remotes.
    Remotes remotes "remote" true (RemoteId) => RemoteRow;
    /// Remotes by peer. Rebuilt at load.
    RemotesByPeer remotes_by_peer "remotes_by_peer" false (PeerId) => RemoteId;
    /// Sequence state by peer; outlives the remote, since the epoch survives forgetting.
    Sessions sessions "session" true (PeerId) => SessionRow;
    /// Frames not yet acknowledged.
    Outbox outbox "outbox" true ((RemoteId, Seq)) => OutboxRow;
    /// The last incarnation observed for each peer.
    PeerIncarnations peer_incarnations "peer_incarnation" true (PeerId) => PeerIncarnationRow;
    /// Known relays, in the order in which they became known.
    Relays relays "relay" true (u64) => RelayRow;
    /// Redemptions in flight, by reply key. They die with the process: their waiters do.
    Redemptions redemptions "redemption" true (Arc<str>) => RedemptionRow;
    /// Issued URLs.
    Grants grants "url" true (GrantId) => GrantRow;
    /// Issued URLs by the hash of their secret. Rebuilt at load.
    GrantsByHash grants_by_hash "grants_by_hash" false ([u8; 32]) => GrantId;
    /// How often an object is pinned.
    Pins pins "pin" true (ObjectId) => u64;
    /// What the control surface holds, with how often: `Waiting` rows are deleted at start.
    Holds holds "hold" true ((KRef, HoldKind)) => u64;
    /// Items set aside.
    DeadLetters dead_letters "dead_letter" true (u64) => DeadLetterRow;
    /// Entities whose counts reached zero in this transaction, to be looked at before it ends. Empty between
    /// transactions.
    Candidates candidates "candidates" false (KRef) => ();
    /// Who in this process waits for a promise: promise and request number.
    Waiters waiters "waiters" false ((PromiseId, u64)) => ();
    /// The kernel services for which this process has code, by name.
    Handlers handlers "handlers" false (Arc<str>) => HandlerRow;
    /// Calls of kernel services in progress, by the queue position of their message.
    ServiceCalls service_calls "service_calls" false (u64) => ServiceCallRow;
}

impl Tables {
    /// Rebuilds the tables that mirror others; called by a backend after loading.
    pub fn rebuild_mirrors(&mut self) {
        let clist: Vec<_> =
            self.clist.iter().map(|(&(endpoint, kref), row)| (endpoint, kref, row.eref)).collect();
        self.clist_by_eref.load(clist.iter().map(|&(endpoint, kref, eref)| ((endpoint, eref), kref)));
        let imports = clist.iter().filter(|(_, _, eref)| eref.side() == Side::Import);
        self.importers
            .load(imports.filter_map(|&(endpoint, kref, _)| Some(((kref.object()?, endpoint), ()))));
        let deciders = self.promises.iter().filter_map(|(&kp, row)| match &row.state {
            PromiseState::Unresolved { decider, .. } => decider.map(|decider| ((decider, kp), ())),
            PromiseState::Fulfilled(_) | PromiseState::Rejected(_) => None,
        });
        let deciders: Vec<_> = deciders.collect();
        self.promises_by_decider.load(deciders);
        let live = self.vats.iter().filter(|(_, row)| row.phase != VatPhase::Terminated);
        let live: Vec<_> = live.map(|(&vat, row)| ((row.subcluster, vat), ())).collect();
        self.subcluster_vats.load(live);
        let peers: Vec<_> = self.remotes.iter().map(|(&rid, row)| (row.peer.clone(), rid)).collect();
        self.remotes_by_peer.load(peers);
        let ended = self.vats.iter().filter(|(_, row)| row.phase == VatPhase::Terminated);
        let ended: Vec<_> = ended.map(|(&vat, _)| (vat, ())).collect();
        self.vats_to_clean.load(ended);
        let results = self.run_queue.iter().filter_map(|(&position, item)| match item {
            QueueItem::Send(item) => Some((item.result?, QueuePlace::Run(position))),
            QueueItem::Notify { .. } | QueueItem::Unreadable(_) => None,
        });
        let parked = self.promise_queue.iter();
        let parked = parked.filter_map(|(&(kp, at), item)| Some((item.result?, QueuePlace::Parked(kp, at))));
        let results: Vec<_> = results.chain(parked).map(|key| (key, ())).collect();
        self.queued_results.load(results);
        let reaps: Vec<_> = self.reaps.iter().map(|(&number, &endpoint)| (endpoint, number)).collect();
        self.reaps_by_endpoint.load(reaps);
        let acting = self.gc_actions.iter().map(|(&(endpoint, ..), ())| endpoint);
        let due: Vec<_> = acting.chain(self.reaps.iter().map(|(_, &endpoint)| endpoint)).collect();
        self.gc_due.load(due.into_iter().map(|endpoint| (endpoint, ())));
        let grants: Vec<_> = self.grants.iter().map(|(&grant, row)| (row.secret_hash, grant)).collect();
        self.grants_by_hash.load(grants);
    }
}
