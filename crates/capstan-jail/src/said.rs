//! What parent and child say to each other. Which vat and which run is known to both, and not said.

use capstan_model::fetch::FetchOutcome;
use capstan_model::file::FileOutcome;
use capstan_model::vat::{DeliveryId, VatDelivery, VatFault, VatReply, VatStart, VatStarted};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// From the parent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// The first one, and only the first.
    Start {
        start: Box<VatStart>,
        /// The globals that vats of this host may ask for; `None`: all.
        allowed_globals: Option<Vec<Arc<str>>>,
    },
    Deliver(Vec<(DeliveryId, VatDelivery)>),
    Fetched(u64, FetchOutcome),
    Looked(u64, FileOutcome),
    /// The answer to [`Told::Exists`].
    Exists(Result<bool, String>),
}

/// From the child; the cases of `capstan_js::VatEvent`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Told {
    Started(Result<VatStarted, String>),
    Replied(Vec<(DeliveryId, VatReply)>),
    Died(VatFault),
    Woken,
    /// The vat asks `fs.existsSync` for a path, and waits.
    Exists(String),
    Log {
        level: String,
        console: bool,
        text: String,
    },
}
