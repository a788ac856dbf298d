//! Everything a kernel can order, and the three ways things leave a step.

use crate::host_op::{Answer, Refusal};
use crate::input::{CallId, RequestId};
use capstan_model::capdata::CapData;
use capstan_model::fetch::FetchRequest;
use capstan_model::file::FileRequest;
use capstan_model::id::{KRef, VatId};
use capstan_model::vat::{DeliveryId, VatDelivery, VatIncarnation, VatStart};
use capstan_wire::seam::LinkOrder;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What one input led to. What may run ahead of the disk and what must wait are different fields (law L3).
///
/// The changes themselves gather in the store's overlay; the driver takes them with `Kernel::take_changes` when
/// it closes a batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// To our own vats: may start at once, since a vat's memory dies with the process.
    pub dispatches: Vec<Dispatch>,
    /// To everyone else: only once the batch with the changes of this step is durable.
    pub effects: Vec<Effect>,
}

/// An order to the host of vats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Dispatch {
    /// Bring a vat up; answered by `Input::VatStarted`.
    Start(VatStart),
    /// Run these deliveries in order; answered by `Input::VatReplied`.
    Deliver {
        /// Which vat.
        vat: VatId,
        /// Which run of it.
        incarnation: VatIncarnation,
        /// The deliveries. Those after one that faults are not run.
        batch: Vec<(DeliveryId, VatDelivery)>,
    },
    /// End a vat's worker. Not answered.
    Stop {
        /// Which vat.
        vat: VatId,
        /// Which run of it.
        incarnation: VatIncarnation,
    },
}

/// An order to the world.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Effect {
    /// Tell the control surface. Executed by the RPC server or the embedding API.
    Answer {
        /// Whom.
        request: RequestId,
        /// What.
        answer: Result<Answer, Refusal>,
    },
    /// Let a kernel service serve a call. Executed by the host's services; answered by
    /// `Input::ServiceReplied`, however long that takes.
    ServiceCall {
        /// Which call.
        call: CallId,
        /// The name of the service.
        service: Arc<str>,
        /// Smallcaps of `[method, args]`; what it names stays alive until the answer.
        methargs: CapData<KRef>,
    },
    /// Tell the links. Executed by the network.
    Link(LinkOrder),
    /// Ask this of the web for a vat, if that run of it still lives (04 §3). Executed by the host.
    Fetch {
        /// For whom.
        vat: VatId,
        /// Which run of it.
        incarnation: VatIncarnation,
        /// As the vat calls it.
        id: u64,
        /// What is asked.
        request: FetchRequest,
    },
    /// Look at a file for a vat, if that run of it still lives (04 §3). Executed by the host.
    Look {
        /// For whom.
        vat: VatId,
        /// Which run of it.
        incarnation: VatIncarnation,
        /// As the vat calls it.
        id: u64,
        /// What is asked.
        request: FileRequest,
    },
    /// Tell the log. Executed by the host.
    Log {
        /// How serious.
        level: LogLevel,
        /// What, in one line.
        text: String,
    },
}

/// How serious a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// For those who look for a fault.
    Debug,
    /// Worth knowing.
    Info,
    /// Something is not as it should be, and was dealt with.
    Warn,
    /// Something was lost or refused that should not have been.
    Error,
}
