//! Everything that can happen to a kernel: facts, in the past tense.

use crate::host_op::HostOp;
use capstan_model::capdata::CapData;
use capstan_model::id::{KRef, VatId};
use capstan_model::peer::Incarnation;
use capstan_model::vat::{DeliveryId, VatFault, VatIncarnation, VatReply, VatStarted};
use capstan_wire::seam::LinkEvent;
use serde::{Deserialize, Serialize};

/// A request of the control surface, within one process life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub u64);

/// A call of a kernel service, within one process life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallId(pub u64);

/// One thing that happened. Handled to the end, in transactions of its own, before the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Input {
    /// The process is up: the first input of a life. Half-launched subclusters are removed, waiters of the dead
    /// process are forgotten, stored vats are started, wanted links are asked for. Made once by the driver.
    Booted,
    /// The control surface asks something. Made by the RPC server and the embedding API; answered by
    /// [`crate::effect::Effect::Answer`] exactly once.
    Requested {
        /// Chosen by the driver, rising.
        request: RequestId,
        /// What is asked.
        op: HostOp,
    },
    /// Nobody waits for that request any more (its client is gone or timed out).
    RequestAbandoned {
        /// Which.
        request: RequestId,
    },
    /// A vat's worker is ready, or could not be started. Made by the host of vats.
    VatStarted {
        /// Which vat.
        vat: VatId,
        /// Which run of it.
        incarnation: VatIncarnation,
        /// What start-up asked for, or why it failed.
        result: Result<VatStarted, String>,
    },
    /// A vat answered deliveries, in order; a fault ends the list. Made by the host of vats.
    VatReplied {
        /// Which vat.
        vat: VatId,
        /// Which run of it.
        incarnation: VatIncarnation,
        /// Each delivery's whole answer.
        replies: Vec<(DeliveryId, VatReply)>,
    },
    /// A vat's worker ended without answering. Made by the host of vats.
    VatDied {
        /// Which vat.
        vat: VatId,
        /// Which run of it.
        incarnation: VatIncarnation,
        /// Why.
        fault: VatFault,
    },
    /// Something that a vat began itself has come due: it wants a [`VatDelivery::Wake`]. Made by the host of vats, once
    /// until that is delivered.
    ///
    /// [`VatDelivery::Wake`]: capstan_model::vat::VatDelivery::Wake
    VatWoken {
        /// Which vat.
        vat: VatId,
        /// Which run of it.
        incarnation: VatIncarnation,
    },
    /// A kernel service answered a call. Made by the host's services.
    ServiceReplied {
        /// Which call; one that is not in progress is ignored.
        call: CallId,
        /// What it fulfils with, naming only what the kernel holds; or what went wrong, as text.
        outcome: Result<CapData<KRef>, String>,
    },
    /// Something happened on the links. Made by the network; `fresh` is a random UUID that becomes our own
    /// incarnation if this event shows that we regressed.
    Link {
        /// What.
        event: LinkEvent,
        /// A name for a new life, unused before.
        fresh: Incarnation,
    },
    /// The machine was suspended, or its clock was set forward. Made by the driver.
    Woke,
    /// The time told by `Kernel::next_deadline` has come, or any other time: may find nothing to do.
    TimeCame,
}
