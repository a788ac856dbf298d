//! The kernel as its driver sees it: inputs in, steps out.

use crate::effect::Step;
use crate::input::Input;
use capstan_model::peer::{Millis, PeerId};
use capstan_store::overlay::Db;
use capstan_store::schema::ChangeSet;

/// Which handshake this kernel speaks (design §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Generation {
    /// Facts in the handshake; both ends compute the session from it.
    #[default]
    Session,
    /// The reference's two frames and nothing more: refuse, close, re-dial.
    Classic,
}

/// What a kernel is told once.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// Our own public name.
    pub peer: PeerId,
    /// Which handshake to speak.
    pub generation: Generation,
    /// How long a stand-alone acknowledgement waits for company (03 C-17).
    pub ack_delay: Millis,
    /// Toward classic peers: when unacknowledged frames are sent again (03 C-19).
    pub ack_timeout: Millis,
    /// Toward classic peers, only if `max_retry_attempts` ≠ 0: unanswered retransmissions before giving up.
    pub ack_retries_max: u32,
    /// 0: the outbox is never given up (03 B-44). Otherwise a link that gave up ends the session.
    pub max_retry_attempts: u32,
    /// The longest frame we accept.
    pub frame_bytes_max: u64,
    /// Recount everything after every transaction (law L6); for tests.
    pub audit_every_transaction: bool,
}

impl KernelConfig {
    /// The defaults for the kernel named `peer`.
    pub fn new(peer: PeerId) -> Self {
        KernelConfig {
            peer,
            generation: Generation::Session,
            ack_delay: Millis(50),
            ack_timeout: Millis(10_000),
            ack_retries_max: 3,
            max_retry_attempts: 0,
            frame_bytes_max: 16 << 20,
            audit_every_transaction: cfg!(debug_assertions),
        }
    }
}

/// One kernel: its state and its rules.
#[derive(Debug)]
pub struct Kernel {
    db: Db,
    config: KernelConfig,
}

impl Kernel {
    /// Takes over the state in `db`. The first input must be [`Input::Booted`].
    pub fn new(db: Db, config: KernelConfig) -> Self {
        Kernel { db, config }
    }

    /// Takes one fact and handles it to the end, and whatever work it makes possible.
    ///
    /// `now` may jump either way: deadlines read it, order never depends on it. Never fails and never
    /// panics: whoever sent a bad input is answered through the effects, and an internal fault rolls its
    /// transaction back and leaves a dead letter (law L7).
    pub fn step(&mut self, now: Millis, input: Input) -> Step {
        let _ = (now, input, &self.config);
        Step::default()
    }

    /// Returns the net difference of all transactions since the last call: to be made durable before any effect
    /// of those steps is executed.
    pub fn take_changes(&mut self) -> ChangeSet {
        self.db.take_changes()
    }

    /// Returns when the kernel next wants [`Input::TimeCame`].
    pub fn next_deadline(&self) -> Option<Millis> {
        None
    }

    /// The state, as of the last transaction.
    pub fn db(&self) -> &Db {
        &self.db
    }
}
