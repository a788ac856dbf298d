//! The fixture: kernels, a network and a clock that one seed drives.
//!
//! ```
//! use capstan_sim::scripted;
//! use capstan_sim::world::{Restart::{Keep, Wipe}, World};
//!
//! let mut world = World::seeded(1);
//! let (ann, bob) = (world.kernel("ann"), world.kernel("bob"));
//! let counter = world.vat(bob, scripted::counter());
//! let url = world.issue(bob, counter);
//! world.call(ann, &url, "bump").fulfils(1);
//! ```

mod calls;
mod checks;
mod drive;
mod faults;
mod fixtures;
mod mischief;
mod release;
mod services;

pub use crate::node::Strike;
pub use calls::{CallId, Calling, Outcome, Target};
pub use faults::Restart;
pub use services::Serve;
pub(crate) use services::{Service, ServiceCall};

use crate::chance::Chance;
use crate::net::{Net, StreamId};
use crate::node::{Mark, Node};
use crate::trace::Trace;
use calls::CallState;
use capstan_kernel::host_op::{Answer, Refusal};
use capstan_kernel::input::{Input, RequestId};
use capstan_model::peer::{ChannelId, Millis, PeerId};
use capstan_store::schema::ChangeSet;
use capstan_wire::link::WriteToken;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Names a kernel of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelId(pub(crate) usize);

/// When batches end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batching {
    /// After every input: the finest there is.
    EachInput,
    /// After a few milliseconds, as chance has it.
    Seeded,
}

/// Something on the agenda.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// The kernel takes the next input.
    Turn(KernelId, u64),
    /// The batch is made durable, its effects are released.
    Commit(KernelId, u64),
    /// Something reaches the kernel.
    Arrives(KernelId, u64, Box<Input>),
    /// The next item of a pipe reaches its end.
    Flows(StreamId, usize),
    /// A dial ends.
    Dialed(KernelId, u64, PeerId),
    /// A write with a token ends.
    Written(KernelId, u64, ChannelId, WriteToken),
}

/// Everything, under one seed.
#[derive(Debug)]
pub struct World {
    pub(crate) chance: Chance,
    pub(crate) now: Millis,
    pub(crate) agenda: BTreeMap<(Millis, u64), Event>,
    pub(crate) ticks: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) net: Net,
    pub(crate) trace: Trace,
    pub(crate) batching: Batching,
    /// The last moment at which anything but a vain attempt happened.
    pub(crate) active: Millis,
    pub(crate) requests: u64,
    pub(crate) calls: Vec<CallState>,
    pub(crate) answers: BTreeMap<RequestId, Result<Answer, Refusal>>,
    /// Every text written, by writer and reader, in order.
    pub(crate) written: BTreeMap<(KernelId, KernelId), Vec<Arc<str>>>,
    /// Dials, by who dialled whom.
    pub(crate) dials: BTreeMap<(KernelId, KernelId), u64>,
    /// What left the processes, if somebody reads it.
    pub(crate) journal: Option<Vec<Record>>,
}

/// Something that left a process.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    /// A batch became durable.
    Committed { kernel: KernelId, changes: Box<ChangeSet>, marks: Vec<Mark> },
    /// A frame was written to a stream; `beside` another in use between the same two, where it is numbered.
    Wrote { from: KernelId, to: KernelId, text: Arc<str>, beside: bool },
}

impl World {
    /// An empty world.
    pub fn seeded(seed: u64) -> Self {
        World {
            chance: Chance::seeded(seed),
            now: Millis(1_000),
            agenda: BTreeMap::new(),
            ticks: 0,
            nodes: Vec::new(),
            net: Net::default(),
            trace: Trace::new(),
            batching: Batching::Seeded,
            active: Millis(1_000),
            requests: 0,
            calls: Vec::new(),
            answers: BTreeMap::new(),
            written: BTreeMap::new(),
            dials: BTreeMap::new(),
            journal: None,
        }
    }

    /// Keeps a journal from now on, if none is kept, and returns what was entered so far.
    pub(crate) fn read_journal(&mut self) -> Vec<Record> {
        self.journal.replace(Vec::new()).unwrap_or_default()
    }

    /// Decides when batches end from now on.
    pub fn set_batching(&mut self, batching: Batching) {
        self.batching = batching;
    }

    /// A number that depends on the whole run: the same seed and the same test give the same.
    pub fn trace_hash(&self) -> u64 {
        self.trace.hash()
    }

    /// The last lines of what happened.
    pub fn trace(&self, lines: usize) -> String {
        self.trace.tail(lines)
    }

    /// What time it is.
    pub fn now(&self) -> Millis {
        self.now
    }

    /// A number below `bound` from the world's own chance, for workloads.
    pub fn chance(&mut self, bound: u64) -> u64 {
        self.chance.below(bound)
    }

    pub(crate) fn node(&self, kernel: KernelId) -> &Node {
        // A `KernelId` comes from this world's `kernel`, which added the node; nodes are never removed.
        &self.nodes[kernel.0]
    }

    pub(crate) fn node_mut(&mut self, kernel: KernelId) -> &mut Node {
        &mut self.nodes[kernel.0]
    }
}
