//! One kernel of the world: what is on its disk, and the process that may be running on it.

use crate::vats::Vats;
use crate::world::{Service, ServiceCall};
use capstan_kernel::effect::Effect;
use capstan_kernel::input::Input;
use capstan_kernel::kernel::{Kernel, KernelConfig};
use capstan_model::peer::{ChannelId, Digest, Incarnation, Millis, PeerId, Seq};
use capstan_store::memory::MemoryStore;
use capstan_store::overlay::Db;
use capstan_store::schema::{ChangeSet, Meta, PeerIncarnations, SessionRow, Sessions};
use capstan_wire::link::{LinkOptions, Links};
use capstan_wire::seam::LinkOrder;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Where a crash strikes, relative to the making durable of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// The batch is lost, and its effects with it.
    BeforeCommit,
    /// The batch is durable; its effects never happen.
    AfterCommit,
}

/// One kernel: its disk outlives its processes.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) config: KernelConfig,
    pub(crate) options: LinkOptions,
    /// The test plays the links itself.
    pub(crate) bare: bool,
    pub(crate) disk: MemoryStore,
    pub(crate) snapshots: Vec<ChangeSet>,
    pub(crate) process: Option<Process>,
    /// Counts process lives.
    pub(crate) life: u64,
    /// Counts incarnations, those offered and never used included.
    pub(crate) names: u64,
    /// Inputs taken in all its lives.
    pub(crate) turns: u64,
    /// Batches made durable so far.
    pub(crate) commits: u64,
    /// Die at that batch.
    pub(crate) strike: Option<(u64, Strike)>,
    /// So many verdicts do not reach the links.
    pub(crate) verdicts_lost: u32,
    /// Orders of a bare kernel, for the test to read.
    pub(crate) orders: Vec<LinkOrder>,
    /// Kernel services that it has code for, in every life.
    pub(crate) services: BTreeMap<Arc<str>, Service>,
    /// Counts how often its disk was set back.
    pub(crate) lineage: u64,
    /// A batch takes up to so long to become durable, milliseconds.
    pub(crate) slow: u64,
    /// How far its clock is ahead of the world's, milliseconds.
    pub(crate) ahead: i64,
    /// What it logged at warning level or above, and at info.
    pub(crate) log: Vec<String>,
}

/// What dies with the process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) kernel: Kernel,
    pub(crate) links: Links,
    pub(crate) vats: Vats,
    pub(crate) inbox: VecDeque<Input>,
    /// A turn is on the agenda.
    pub(crate) turn_due: bool,
    /// A commit is on the agenda.
    pub(crate) commit_due: bool,
    /// Effects that wait for the batch.
    pub(crate) held: Vec<Effect>,
    /// Calls of kernel services that are kept unanswered.
    pub(crate) kept_calls: Vec<ServiceCall>,
    /// When the kernel and the links were last told the time.
    pub(crate) told: (Millis, Millis),
    pub(crate) next_channel: u64,
    /// When the last answer of a vat arrives: none overtakes another.
    pub(crate) vats_last: Millis,
    /// How far it had received from each peer after each input since the last batch.
    pub(crate) marks: Vec<Mark>,
}

/// How far a kernel has received from a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) peer: PeerId,
    /// The life of the peer that it was received from.
    pub(crate) life: Option<Incarnation>,
    /// Our own.
    pub(crate) own: Incarnation,
    pub(crate) recv: Seq,
    pub(crate) digest: Digest,
}

impl Node {
    pub(crate) fn new(name: &str, config: KernelConfig, options: LinkOptions) -> Self {
        let mut node = Node {
            name: name.to_owned(),
            config,
            options,
            bare: false,
            disk: MemoryStore::default(),
            snapshots: Vec::new(),
            process: None,
            life: 0,
            names: 0,
            turns: 0,
            commits: 0,
            strike: None,
            verdicts_lost: 0,
            orders: Vec::new(),
            services: BTreeMap::new(),
            lineage: 0,
            slow: 3,
            ahead: 0,
            log: Vec::new(),
        };
        node.wipe();
        node
    }

    /// A name for a new incarnation.
    pub(crate) fn fresh(&mut self) -> Incarnation {
        self.names += 1;
        Incarnation::new(format!("{}-{}", self.name, self.names))
    }

    /// Empties the disk: the same key, a new life.
    pub(crate) fn wipe(&mut self) {
        let life: Arc<str> = self.fresh().as_str().into();
        let peer: Arc<str> = self.config.peer.as_str().into();
        self.overwrite(&ChangeSet {
            meta: [("incarnation".into(), Some(life)), ("peerId".into(), Some(peer))].into(),
            ..ChangeSet::default()
        });
    }

    /// Replaces everything on the disk.
    pub(crate) fn overwrite(&mut self, rows: &ChangeSet) {
        self.disk = MemoryStore::default();
        self.write(rows);
    }

    /// Adds to what is on the disk.
    pub(crate) fn write(&mut self, rows: &ChangeSet) {
        // The memory store never refuses; its result is that of every backend.
        let _ = self.disk.apply(rows);
    }

    pub(crate) fn snapshot(&self) -> ChangeSet {
        self.disk.reload().snapshot()
    }

    /// Starts a process on what is on the disk.
    pub(crate) fn start(&mut self, now: Millis) {
        self.life += 1;
        self.process = Some(Process {
            kernel: Kernel::new(Db::load(self.disk.reload()), self.config.clone()),
            links: Links::new(self.config.peer.clone(), self.options),
            vats: Vats::of(self.lineage),
            inbox: [Input::Booted].into(),
            turn_due: false,
            commit_due: false,
            held: Vec::new(),
            kept_calls: Vec::new(),
            told: (Millis(0), Millis(0)),
            next_channel: 0,
            vats_last: now,
            marks: Vec::new(),
        });
    }

    /// What its clock shows.
    pub(crate) fn clock(&self, now: Millis) -> Millis {
        Millis(now.0.saturating_add_signed(self.ahead))
    }
}

impl Process {
    /// How far it has received from each peer now.
    pub(crate) fn now_received(&self) -> Vec<Mark> {
        let db = self.kernel.db();
        let own = db.get::<Meta>(&"incarnation".into()).cloned().unwrap_or_else(|| "".into());
        let mark = |(peer, row): (&PeerId, &SessionRow)| Mark {
            peer: peer.clone(),
            life: db.get::<PeerIncarnations>(peer).and_then(|row| row.incarnation.clone()),
            own: Incarnation::new(&*own),
            recv: row.recv,
            digest: row.recv_digest,
        };
        db.iter::<Sessions>().map(mark).collect()
    }

    /// A channel number that no stream had in this life.
    pub(crate) fn channel(&mut self) -> ChannelId {
        self.next_channel += 1;
        ChannelId(self.next_channel)
    }
}
