//! Corruption: a failed internal invariant. The transaction is undone, the input set aside, the loop goes on (law L7).

use capstan_model::id::{EndpointId, KRef, ObjectId, PromiseId};
use capstan_model::refs::ERef;
use std::sync::Arc;

/// What was found wrong with our own state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Corrupt {
    /// Something refers to an object that has no row.
    #[error("object {0} has no record")]
    NoObject(ObjectId),
    /// Something refers to a promise that has no row.
    #[error("promise {0} has no record")]
    NoPromise(PromiseId),
    /// A count would go below zero, or reachable above recognisable.
    #[error("count of {0} would go out of range")]
    Count(KRef),
    /// An endpoint has no row.
    #[error("endpoint {0} has no record")]
    NoEndpoint(EndpointId),
    /// A c-list lacks an entry that must be there.
    #[error("{0} has no entry for {1}")]
    NoEntry(EndpointId, KRef),
    /// A c-list has an entry that must not be there.
    #[error("{0} has another entry for {1} or {2}")]
    DoubleEntry(EndpointId, KRef, ERef),
    /// A promise is settled that should not be, or the reverse.
    #[error("promise {0} is in the wrong state")]
    WrongState(PromiseId),
    /// A row cannot be understood.
    #[error("a row that cannot be read: {0}")]
    Unreadable(Arc<str>),
    /// The recount after a transaction found this.
    #[error("{0}")]
    Audit(String),
    /// A number dispenser is used up or a row is otherwise impossible.
    #[error("{0}")]
    Impossible(&'static str),
}
