//! What the embedding API returns.

use capstan_kernel::audit::Problem;
use capstan_kernel::host_op::{Answer, Phrase, Refusal};
use capstan_model::capdata::CapData;
use capstan_model::id::{KRef, ObjectId, SubclusterId, VatId};
use capstan_model::peer::Hint;
use capstan_model::smallcaps::render;
use std::sync::Arc;

/// One row of a query: columns in order.
pub type Record = serde_json::Map<String, serde_json::Value>;

/// A subcluster that runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Launched {
    /// Its id.
    pub subcluster: SubclusterId,
    /// The root of its bootstrap vat.
    pub root: ObjectId,
    /// What `bootstrap` fulfilled with; `None` if it was not called.
    pub bootstrap_result: Option<CapData<KRef>>,
    /// Its vats: name, id, root.
    pub vats: Vec<(Arc<str>, VatId, ObjectId)>,
}

/// What a call came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// Rejected rather than fulfilled.
    pub rejected: bool,
    /// The value or the reason.
    pub value: CapData<KRef>,
}

/// What an audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FsckReport {
    /// What is wrong; empty when all is well.
    pub problems: Vec<Problem>,
    /// What was looked at: table and number of rows.
    pub checked: Vec<(&'static str, u64)>,
}

/// A copy of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of it, hexadecimal.
    pub sha256: String,
}

pub(crate) fn launched(answer: Answer) -> Result<Launched, Refusal> {
    match answer {
        Answer::Launched { subcluster, root, bootstrap_result, vats } => {
            Ok(Launched { subcluster, root, bootstrap_result, vats })
        }
        other => Err(unexpected(&other)),
    }
}

pub(crate) fn settled(answer: Answer) -> Result<Settled, Refusal> {
    match answer {
        Answer::Settled { rejected, value } => Ok(Settled { rejected, value }),
        other => Err(unexpected(&other)),
    }
}

/// Where a URL that was granted says that we are.
pub(crate) fn granted(answer: Answer) -> Result<Vec<Hint>, Refusal> {
    match answer {
        Answer::Url { grant: _, hints } => Ok(hints),
        other => Err(unexpected(&other)),
    }
}

pub(crate) fn phrase(answer: Answer) -> Result<Option<Phrase>, Refusal> {
    match answer {
        Answer::Phrase(phrase) => Ok(phrase),
        other => Err(unexpected(&other)),
    }
}

pub(crate) fn redeemed(answer: Answer) -> Result<ObjectId, Refusal> {
    match answer {
        Answer::Redeemed { object } => Ok(object),
        other => Err(unexpected(&other)),
    }
}

pub(crate) fn root(answer: Answer) -> Result<ObjectId, Refusal> {
    match answer {
        Answer::Root { object } => Ok(object),
        other => Err(unexpected(&other)),
    }
}

pub(crate) fn object(answer: Answer) -> Result<ObjectId, Refusal> {
    match answer {
        Answer::Object { object } => Ok(object),
        other => Err(unexpected(&other)),
    }
}

pub(crate) fn done(answer: Answer) -> Result<(), Refusal> {
    match answer {
        Answer::Done => Ok(()),
        other => Err(unexpected(&other)),
    }
}

/// Says why, for people; a rejection with what it was rejected with.
pub(crate) fn reason(refusal: &Refusal) -> String {
    match refusal {
        Refusal::BootstrapRejected(value) => {
            format!("{refusal}: {}", render(value).unwrap_or_else(|_| value.body.to_string()))
        }
        other => other.to_string(),
    }
}

fn unexpected(answer: &Answer) -> Refusal {
    Refusal::Internal(format!("unexpected answer {answer:?}"))
}
