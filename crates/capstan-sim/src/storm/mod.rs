//! A random workload on two to four kernels, with the real links and sessions between them, under every fault that a
//! network, a disk, a clock and an operator can bring; and what must hold all the while and at the end (03 G.1, G.7).
//!
//! A seed decides a [`Plan`] before anything runs; [`run`] performs it, [`shrink`] cuts a failing one down. Two kinds of
//! plan: [`Plan::seeded`] is rough in every way; [`Plan::of_handshakes`] says little, and lets everything befall the few
//! milliseconds in which two kernels agree on a session.
//!
//! **All the while** (after each batch and frame): what a kernel has received from a peer is a beginning of what that
//! life of the peer has durably sent to it (I1, I2, I10), and covers all that the peer holds acknowledged (I3); what is
//! written was durable before (I5), is written on one channel (I11), and a number stands for one text (I22); a session
//! with anything in it ends only where a life, a peer or a link was ended, and only what was set back takes itself for an
//! older backup (I7); no message is executed twice or out of
//! order, reaches another object or settles another promise than it was meant for (I1, I9); the recount finds nothing
//! (I13, I14, I21); no frame of an honest peer is set aside or ignored, and nothing panics (I17).
//! **At rest**: everybody who waited was told (I8, I20); nothing moves any more (I16); each side of a pair understands
//! what the other may say (I12); where nothing ended, every message was executed (I7); when all let go of all,
//! nothing is left (I15), and everybody can still call everybody (I20).
//!
//! **Classic kernels** say nothing of sessions in their handshakes, so these cannot be promised where one takes part:
//! exactly-once when a handshake of a dead life arrives late, since it is taken for a restart, or when a kernel is
//! restored or a session ended on one side only, since handshakes carry no epoch. In such storms nothing of a life
//! arrives after its disk was emptied, nothing is restored, copied, reset, closed or forgotten; all checks stay but one:
//! toward classic kernels names of settled promises are kept, as they keep theirs, so something may be left at the end.

mod agent;
mod conclude;
mod driver;
mod errand;
mod plan;
mod shrink;
mod watch;

pub(crate) use agent::agent;
pub use errand::{Body, Deed, Pick, Reply, Settlement};
pub use plan::{Act, Loss, Plan, Spoil, Who};
pub use shrink::shrink;

use driver::Storm;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Lines of a trace that a report shows.
const LINES: usize = 200;

/// A storm that showed a fault.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was wrong.
    pub what: String,
    /// The last things that happened.
    pub trace: String,
}

/// Performs a plan and concludes; returns a hash of all that happened.
pub fn run(plan: &Plan) -> Result<u64, Failure> {
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let mut storm = Storm::new(plan);
        let outcome = storm.perform(plan);
        outcome
            .map(|()| storm.world.trace_hash())
            .map_err(|what| Failure { what, trace: storm.world.trace(LINES) })
    }));
    caught.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("of some kind");
        let (what, trace) = text.split_once('\n').unwrap_or((text, ""));
        Err(Failure { what: format!("panic: {what}"), trace: trace.to_owned() })
    })
}
