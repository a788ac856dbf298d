//! What is said between the kernel and a vat (02 §6, §15; 04 §6, §7): deliveries in, one reply with everything out.
//!
//! Whoever hosts vats (`capstan-js`, a scripted vat in tests) implements this and nothing else.

use crate::capdata::{CapData, Message, Resolution};
use crate::fetch::FetchRequest;
use crate::file::FileRequest;
use crate::id::VatId;
use crate::refs::VRef;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One run of a vat's worker; raised at every start, so that what an earlier run still says is not believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VatIncarnation(pub u64);

/// Names one delivery within a process life, so that its reply finds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeliveryId(pub u64);

/// What form a vat's code has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CodeFormat {
    /// One ES module of JavaScript, importing only what the runtime itself serves (04 §9).
    Module,
    /// A bundle in the reference's format: JSON with `moduleFormat: "iife"` (04 §4). Ours may also name, in `external`, what
    /// it has from the runtime, and have a `sourceMap`.
    Bundle,
}

/// A vat's program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VatCode {
    /// How to read `text`.
    pub format: CodeFormat,
    /// The file name that error messages and stacks show.
    pub name: Arc<str>,
    /// The program.
    pub text: Arc<str>,
}

/// What one vat may use (04 §8). Exceeding one is a [`VatFault::Limit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VatLimits {
    /// Wall time of one delivery, milliseconds.
    pub crank_deadline_ms: u64,
    /// Memory of the vat's heap, bytes.
    pub memory_bytes_max: u64,
    /// Syscalls in one delivery.
    pub syscalls_max: u32,
    /// Total bodies of one syscall, UTF-16 code units.
    pub body_units_max: u64,
    /// Total slots of one syscall.
    pub slots_max: u32,
    /// The vat's durable store, bytes of keys and values.
    pub store_bytes_max: u64,
    /// Messages that may wait for it; more are refused to their senders. A rule of the kernel, not of the worker.
    pub queued_max: u32,
}

impl Default for VatLimits {
    fn default() -> Self {
        VatLimits {
            crank_deadline_ms: 10_000,
            memory_bytes_max: 128 << 20,
            syscalls_max: 100_000,
            body_units_max: 10_000_000,
            slots_max: 10_000,
            store_bytes_max: 1 << 30,
            queued_max: 1_000_000,
        }
    }
}

/// The names that a vat's `globals` may ask for (04 §2).
pub const GLOBALS: [&str; 20] = [
    "setTimeout",
    "clearTimeout",
    "setInterval",
    "clearInterval",
    "Date",
    "Math",
    "crypto",
    "SubtleCrypto",
    "fetch",
    "Request",
    "Headers",
    "Response",
    "TextEncoder",
    "TextDecoder",
    "URL",
    "URLSearchParams",
    "atob",
    "btoa",
    "AbortController",
    "AbortSignal",
];

/// What a vat is given beyond the language, as its configuration asks (04 §2, §3). Nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endowments {
    /// Names of [`GLOBALS`].
    pub globals: Vec<Arc<str>>,
    /// The hosts that `fetch` may reach; it needs this list, which may be empty.
    pub allowed_hosts: Option<Vec<Arc<str>>>,
    /// The global `fs`.
    pub files: Option<FileAccess>,
}

/// What of the file system a vat may look at (04 §3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileAccess {
    /// Nothing outside this directory.
    pub root_dir: Arc<str>,
    /// Gives `fs.existsSync`.
    pub exists_sync: bool,
    /// Gives `fs.promises.readFile`.
    pub read_file: bool,
    /// Gives `fs.promises.access`.
    pub access: bool,
}

/// Everything a host of vats needs to bring one up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VatStart {
    /// Which vat.
    pub vat: VatId,
    /// Which run of it.
    pub incarnation: VatIncarnation,
    /// Its program.
    pub code: VatCode,
    /// `parameters` for `buildRootObject`: JSON text, or none.
    pub parameters: Option<Arc<str>>,
    /// Its whole durable store, in key order.
    pub store: Vec<(Arc<str>, Arc<str>)>,
    /// What it may use.
    pub limits: VatLimits,
    /// What it is given.
    pub endowments: Endowments,
}

/// One call into a vat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VatDelivery {
    /// Invoke a method of one of its objects.
    Message {
        /// The object, always in the vat's c-list.
        target: VRef,
        /// Method, arguments, result.
        message: Message<VRef>,
    },
    /// These promises are settled.
    Notify(Vec<Resolution<VRef>>),
    /// Nobody outside can reach these exports any more.
    DropExports(Vec<VRef>),
    /// Nobody outside can even recognise these exports any more.
    RetireExports(Vec<VRef>),
    /// These imports are gone.
    RetireImports(Vec<VRef>),
    /// Collect garbage and say what was found.
    BringOutYourDead,
    /// Run what has come due of what the vat itself began: timers, answers from outside. This is the asynchronous
    /// crank of 02 §6; the host of vats asks for it, and it may find nothing to do.
    Wake,
}

/// One thing a vat asks of the kernel. It never waits for an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VatSyscall {
    /// Call an object or a promise.
    Send {
        /// Whom.
        target: VRef,
        /// What.
        message: Message<VRef>,
    },
    /// Tell me when this promise settles.
    Subscribe(VRef),
    /// I settle these promises, as one group.
    Resolve(Vec<Resolution<VRef>>),
    /// End me after this crank.
    Exit {
        /// Undo the crank.
        failure: bool,
        /// Completion value or reason.
        info: CapData<VRef>,
    },
    /// I no longer reach these imports.
    DropImports(Vec<VRef>),
    /// I no longer even recognise these imports.
    RetireImports(Vec<VRef>),
    /// Nobody else can name these exports of mine.
    RetireExports(Vec<VRef>),
    /// Forget these exports, whoever holds them.
    AbandonExports(Vec<VRef>),
    /// Ask this of the web once the crank is durable; the answer comes with a [`VatDelivery::Wake`] (04 §3).
    Fetch {
        /// Chosen by the vat.
        id: u64,
        /// What is asked.
        request: Box<FetchRequest>,
    },
    /// Look at a file once the crank is durable; the answer comes with a [`VatDelivery::Wake`] (04 §3).
    Look {
        /// Chosen by the vat.
        id: u64,
        /// What is asked.
        request: FileRequest,
    },
}

/// Changes to a vat's durable store since the last reply: each key in at most one list (02 §13).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreChanges {
    /// Keys written, with their values.
    pub sets: Vec<(Arc<str>, Arc<str>)>,
    /// Keys removed.
    pub deletes: Vec<Arc<str>>,
}

/// Why a delivery failed as a whole; a user's exception is no fault but a rejection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum VatFault {
    /// The runtime refused, e.g. for an object this incarnation never made.
    #[error("{0}")]
    Runtime(String),
    /// A limit was exceeded; the text names it.
    #[error("{0}")]
    Limit(String),
    /// The worker is gone.
    #[error("{0}")]
    WorkerDied(String),
}

/// A vat's whole answer to one delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VatReply {
    /// In the order they were made.
    pub syscalls: Vec<VatSyscall>,
    /// What to write through.
    pub store: StoreChanges,
    /// Whether the delivery as such went well.
    pub outcome: Result<(), VatFault>,
}

/// A vat's answer to being started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VatStarted {
    /// What start-up itself asked for, in order.
    pub syscalls: Vec<VatSyscall>,
    /// What to write through.
    pub store: StoreChanges,
    /// The root object's own method names, sorted.
    pub root_methods: Vec<String>,
}
