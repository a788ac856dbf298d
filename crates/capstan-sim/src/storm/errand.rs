//! What a message of the storm carries: who sent it, in what order, to whom, and what its receiver is to do.

use serde::{Deserialize, Serialize};

/// A choice among whatever there is to choose from at the time: taken modulo its number.
pub type Pick = u32;

/// The first argument of every message, as JSON text; the references follow it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Errand {
    /// Unlike that of every other message ever sent.
    pub(super) id: String,
    /// Which vat sent it.
    pub(super) from: String,
    /// How many messages that vat had sent before.
    pub(super) number: u64,
    /// What the sender calls the target.
    pub(super) way: String,
    /// The label of the target, where that is an object.
    pub(super) to: Option<String>,
    /// The labels of the references, in order.
    pub(super) labels: Vec<String>,
    /// What is to be done.
    pub(super) body: Body,
}

/// What the receiver of a message does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// In order.
    pub deeds: Vec<Deed>,
    /// With the result, at the end.
    pub answer: Reply,
}

/// What becomes of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is settled at once.
    Now(Settlement),
    /// It stays open.
    #[default]
    Later,
}

/// How a promise is settled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// Rejected rather than fulfilled.
    pub rejected: bool,
    /// With an object itself rather than a list, so that messages to the promise go on to it.
    pub bare: bool,
    /// References to pass.
    pub slots: Vec<Pick>,
}

/// One thing that a vat does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deed {
    /// It sends.
    Send {
        /// To whom.
        target: Pick,
        /// With what.
        slots: Vec<Pick>,
        /// Whether it wants an answer.
        wanted: bool,
        /// What the receiver does.
        body: Body,
    },
    /// It makes a promise.
    Promise,
    /// It makes an object.
    Object,
    /// It settles a promise that it decides.
    Settle(Pick, Settlement),
    /// It drops an import, and with `true` retires it at once.
    Drop(Pick, bool),
    /// It settles all that it decides.
    SettleAll,
    /// It lets go of all that it imports.
    ForgetAll,
}
