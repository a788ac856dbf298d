//! What the control surface may ask, and what it is told (02 §12, 05 §2, 07).

use capstan_model::capdata::CapData;
use capstan_model::id::{EndpointId, GrantId, KRef, ObjectId, PromiseId, RemoteId, SubclusterId, VatId};
use capstan_model::peer::{Hint, Incarnation, Millis, PeerId, Seq};
use capstan_model::vat::{Endowments, VatCode, VatLimits};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One request. Everything slow or random has happened before: files are read, secrets and keys are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum HostOp {
    /// Launch a subcluster, all or nothing (02 §10.1). Answered by [`Answer::Launched`].
    Launch(LaunchConfig),
    /// Launch a subcluster that the host keeps under a name (02 §10.4). Answered by [`Answer::Launched`].
    LaunchSystem {
        /// Its name; no other system subcluster has it.
        name: Arc<str>,
        /// What to launch; restricted services are allowed.
        config: LaunchConfig,
    },
    /// Find the root of a system subcluster. Answered by [`Answer::Root`].
    SystemRoot(Arc<str>),
    /// Call `target` and wait for the settlement. Answered by [`Answer::Settled`].
    Send {
        /// An object or promise of this kernel.
        target: KRef,
        /// Smallcaps of `[method, args]`; slots are krefs.
        methargs: CapData<KRef>,
    },
    /// Wait until a promise is settled. Answered by [`Answer::Settled`].
    Await(PromiseId),
    /// Issue an `ocap:` URL. Answered by [`Answer::Url`].
    IssueUrl {
        /// For which object.
        object: ObjectId,
        /// 32 random bytes that go into the URL; only their hash is stored.
        secret: [u8; 32],
    },
    /// Redeem an `ocap:` URL, ours or a peer's. Answered by [`Answer::Redeemed`].
    RedeemUrl {
        /// The URL.
        url: String,
        /// A random 128-bit text, unused before (03 C-34).
        reply_key: Arc<str>,
    },
    /// End a grant. Answered by [`Answer::Done`].
    RevokeUrl(GrantId),
    /// List the grants. Answered by [`Answer::Grants`].
    ListUrls,
    /// Stop a vat's worker and start a new one on the same state (02 §9.3). Answered by [`Answer::Done`] when it runs.
    RestartVat(VatId),
    /// End a vat (02 §9.4). Answered by [`Answer::Done`].
    TerminateVat(VatId),
    /// End all vats, the last started first. Answered by [`Answer::Done`].
    TerminateAllVats,
    /// Ask whether a vat runs. Answered by [`Answer::Done`].
    PingVat(VatId),
    /// End a subcluster. Answered by [`Answer::Done`].
    TerminateSubcluster(SubclusterId),
    /// Refuse all deliveries to this object, for good. Answered by [`Answer::Done`].
    Revoke(KRef),
    /// Ask whether an object is revoked. Answered by [`Answer::Revoked`].
    IsRevoked(KRef),
    /// Forget everything but the identity and go on as a new incarnation (02 §14). All who wait are refused.
    /// Answered by [`Answer::Done`].
    Reset {
        /// A name for the new life, unused before.
        life: Incarnation,
    },
    /// Keep an object alive until it is unpinned as often (02 §7.6). Answered by [`Answer::Done`].
    Pin(ObjectId),
    /// Undo one pin; does nothing to what is not pinned. Answered by [`Answer::Done`].
    Unpin(ObjectId),
    /// Pin the root of a vat. Answered by [`Answer::Object`].
    PinRoot(VatId),
    /// Undo one pin of the root of a vat. Answered by [`Answer::Object`].
    UnpinRoot(VatId),
    /// Note that this process has code for a kernel service (02 §10.2). Answered by [`Answer::Object`], the same
    /// one after a restart.
    RegisterService {
        /// Its name.
        name: Arc<str>,
        /// Given to system subclusters only.
        system_only: bool,
        /// An object that its code refers to: kept alive until the service is unregistered or the process ends.
        holds: Option<ObjectId>,
    },
    /// Forget a kernel service and its object; does nothing if there is none. Answered by [`Answer::Done`].
    UnregisterService {
        /// Its name.
        name: Arc<str>,
    },
    /// Release what results handed out, reap all vats, collect to quiescence. Answered by [`Answer::Collected`].
    Collect,
    /// Ask these vats and remotes to collect garbage, soon; whoever is gone is left out (03 E-16). Answered by
    /// [`Answer::Done`].
    Reap(Vec<EndpointId>),
    /// Everything at a glance. Answered by [`Answer::Status`].
    Status,
    /// Vats and subclusters, of one moment. Answered by [`Answer::Overview`].
    Overview,
    /// List vats. Answered by [`Answer::Vats`].
    ListVats,
    /// List subclusters. Answered by [`Answer::Subclusters`].
    ListSubclusters,
    /// List remotes. Answered by [`Answer::Remotes`].
    ListRemotes,
    /// List items set aside. Answered by [`Answer::DeadLetters`].
    ListDeadLetters,
    /// Remember where a peer can be dialled. Answered by [`Answer::Done`].
    PeerHint {
        /// Whom.
        peer: PeerId,
        /// Where.
        hints: Vec<Hint>,
    },
    /// Intentionally close a peer (03 B-48). Answered by [`Answer::Done`].
    PeerClose(PeerId),
    /// Undo a close and dial (03 B-49). Answered by [`Answer::Done`].
    PeerReconnect {
        /// Whom.
        peer: PeerId,
        /// Where it might be.
        hints: Vec<Hint>,
    },
    /// Delete a remote and all that is kept about it (03 C-42). Answered by [`Answer::Done`].
    PeerForget(PeerId),
    /// Take the recovery phrase of the identity out of the store, if it is still there. Answered by
    /// [`Answer::Phrase`].
    TakePhrase,
    /// Prepare to stop: no more answers are needed afterwards. Answered by [`Answer::Done`].
    PrepareStop,
}

/// A subcluster to launch; code is already loaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaunchConfig {
    /// The name of the bootstrap vat; one of `vats`.
    pub bootstrap: Arc<str>,
    /// Launched without calling `bootstrap` if the root has no such method (a single source, 07 "Vats").
    pub bootstrap_optional: bool,
    /// The vats, in launch order.
    pub vats: Vec<VatConfig>,
    /// Names of kernel services given to `bootstrap`.
    pub services: Vec<Arc<str>>,
    /// The configuration as given, JSON text, for the record.
    pub text: Arc<str>,
}

/// One vat of a subcluster to launch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VatConfig {
    /// Its name in the subcluster.
    pub name: Arc<str>,
    /// Its program.
    pub code: VatCode,
    /// Content hash of the program.
    pub code_hash: Arc<str>,
    /// `parameters`, JSON text.
    pub parameters: Option<Arc<str>>,
    /// What it may use.
    pub limits: VatLimits,
    /// What it is given.
    pub endowments: Endowments,
}

/// What the control surface is told when all went well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// It is done.
    Done,
    /// A subcluster runs.
    Launched {
        /// Its id.
        subcluster: SubclusterId,
        /// The root of its bootstrap vat.
        root: ObjectId,
        /// What `bootstrap` fulfilled with; `None` if it was not called.
        bootstrap_result: Option<CapData<KRef>>,
        /// Its vats: name, id, root.
        vats: Vec<(Arc<str>, VatId, ObjectId)>,
    },
    /// A call settled. Krefs in it are held for the control surface until `Collect` (02 §12.3).
    Settled {
        /// Rejected rather than fulfilled.
        rejected: bool,
        /// The value or the reason.
        value: CapData<KRef>,
    },
    /// An issued URL: the driver knows its secret, and puts it together.
    Url {
        /// The grant behind it.
        grant: GrantId,
        /// Where we are.
        hints: Vec<Hint>,
    },
    /// The root object of a subcluster's bootstrap vat.
    Root {
        /// As this kernel names it; it lives as long as its vat.
        object: ObjectId,
    },
    /// Whether an object is revoked.
    Revoked(bool),
    /// The object behind a URL.
    Redeemed {
        /// As this kernel names it.
        object: ObjectId,
    },
    /// The object that was asked for.
    Object {
        /// As this kernel names it.
        object: ObjectId,
    },
    /// Collection reached quiescence.
    Collected {
        /// How many objects there were.
        objects_before: u64,
        /// How many there are.
        objects_after: u64,
    },
    /// Counts.
    Status(Status),
    /// What runs, of one moment.
    Overview {
        /// As by [`Answer::Vats`].
        vats: Vec<VatView>,
        /// As by [`Answer::Subclusters`].
        subclusters: Vec<SubclusterView>,
    },
    /// Vats, terminated ones left out.
    Vats(Vec<VatView>),
    /// Subclusters.
    Subclusters(Vec<SubclusterView>),
    /// Remotes.
    Remotes(Vec<RemoteView>),
    /// Grants.
    Grants(Vec<GrantView>),
    /// Items set aside.
    DeadLetters(Vec<DeadLetterView>),
    /// The recovery phrase; it is kept no more.
    Phrase(Option<Phrase>),
}

/// The words that an identity can be made from again; not shown by mistake.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phrase(pub Arc<str>);

impl std::fmt::Debug for Phrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Phrase(…)")
    }
}

/// Everything at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field counts what its name says")]
pub struct Status {
    pub incarnation: Incarnation,
    pub vats: u64,
    pub subclusters: u64,
    pub remotes: u64,
    pub objects: u64,
    pub promises: u64,
    /// Run-queue and promise-queue items.
    pub queued: u64,
    /// Confirmed listen addresses.
    pub listen: Vec<Hint>,
    /// What somebody must look into, since this process began: another kernel under our identity, a state that was put
    /// back (03 G.4).
    pub alarms: Vec<Arc<str>>,
}

/// One vat, for people and scripts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VatView {
    /// Its id.
    pub vat: VatId,
    /// Its name in its subcluster.
    pub name: Arc<str>,
    /// Its subcluster.
    pub subcluster: SubclusterId,
    /// `launching`, `starting`, `running` or `failed`.
    pub phase: String,
    /// Why it failed.
    pub failure: Option<String>,
    /// Its root object.
    pub root: Option<ObjectId>,
    /// The file name of its code.
    pub source: Arc<str>,
    /// Its present run.
    pub incarnation: u64,
}

/// One subcluster, for people and scripts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubclusterView {
    /// Its id.
    pub subcluster: SubclusterId,
    /// The name of its bootstrap vat.
    pub bootstrap: Arc<str>,
    /// Its name, if it is a system subcluster.
    pub system: Option<Arc<str>>,
    /// The configuration it was launched from, JSON text.
    pub config: Arc<str>,
    /// Its vats by name.
    pub vats: Vec<(Arc<str>, VatId)>,
}

/// One remote, for people and scripts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteView {
    /// Its id.
    pub remote: RemoteId,
    /// Whom it stands for.
    pub peer: PeerId,
    /// `connected`, `connecting`, `disconnected` or `closed`.
    pub state: String,
    /// The peer's life on record.
    pub peer_incarnation: Option<Incarnation>,
    /// How many restarts of the peer were seen.
    pub restarts_seen: u64,
    /// Last number assigned.
    pub sent: Seq,
    /// Last number acknowledged.
    pub acked: Seq,
    /// Last contiguous number received.
    pub received: Seq,
    /// Frames in the outbox.
    pub pending: u64,
    /// Where it might be dialled.
    pub hints: Vec<Hint>,
}

/// One grant, for people and scripts; never the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantView {
    /// Its id.
    pub grant: GrantId,
    /// What it designates.
    pub object: ObjectId,
    /// When it was issued.
    pub issued: Millis,
    /// When it was last redeemed.
    pub last_used: Option<Millis>,
    /// Ended.
    pub revoked: bool,
}

/// One item set aside, for people and scripts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterView {
    /// Its number. The last 1000 are kept; numbers have no gaps, so the first one tells how many are gone.
    pub number: u64,
    /// When.
    pub at: Millis,
    /// What.
    pub item: String,
    /// Why.
    pub reason: String,
}

/// Why a request was not carried out. Nothing has changed, except where a variant says otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// A name that this kernel does not know, or of the wrong kind.
    #[error("invalid reference {0}")]
    BadReference(String),
    /// The URL does not parse.
    #[error("{0}")]
    BadUrl(String),
    /// The configuration is not sound.
    #[error("{0}")]
    BadConfig(String),
    /// A launch failed; nothing of it remains.
    #[error("{0}")]
    LaunchFailed(String),
    /// `bootstrap` rejected; nothing of the launch remains.
    #[error("bootstrap was rejected")]
    BootstrapRejected(CapData<KRef>),
    /// 01 §7.
    #[error("Vat does not exist.")]
    VatNotFound(VatId),
    /// The vat is known and does not run.
    #[error("{0}")]
    VatNotRunning(String),
    /// 01 §7.
    #[error("Subcluster does not exist.")]
    SubclusterNotFound(SubclusterId),
    /// No system subcluster has that name.
    #[error("System subcluster {0:?} not found")]
    SystemSubclusterNotFound(Arc<str>),
    /// Only objects can be revoked.
    #[error("cannot revoke promise {0}")]
    CannotRevoke(PromiseId),
    /// The state that the request was about is gone.
    #[error("the kernel was reset")]
    Reset,
    /// The process has code for a kernel service of this name already.
    #[error("kernel service '{0}' is already registered")]
    ServiceRegistered(Arc<str>),
    /// No remote stands for that peer.
    #[error("no remote stands for peer {0}")]
    PeerNotFound(PeerId),
    /// The URL names no grant of ours, or a revoked or expired one; or the peer said so.
    #[error("{0}")]
    UrlUnknown(String),
    /// The peer did not answer in time (03 A-32).
    #[error("{0}")]
    RedemptionTimeout(String),
    /// The redemption failed with the link.
    #[error("{0}")]
    PeerUnreachable(String),
    /// The peer restarted while it was asked (03 S9). Of the URL in its new life nothing is known yet: it can be asked again.
    #[error("Remote peer restarted")]
    PeerRestarted,
    /// The peer was closed or forgotten while it was asked.
    #[error("{0}")]
    Redemption(String),
    /// One of ours failed; nothing has changed and the input was set aside.
    #[error("{0}")]
    Internal(String),
}
