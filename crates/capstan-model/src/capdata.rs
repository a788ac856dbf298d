//! Values that cross a boundary (01 §4).

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A value crossing a boundary; `body` points into `slots` by index and is never rewritten.
///
/// `R` is the reference space: `KRef` inside the kernel, `VRef` in a vat, `RRef` in a remote's c-list terms,
/// `WireRef` in a frame. A slot may be listed and not mentioned in the body; it still counts as a reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapData<R> {
    /// Text, normally smallcaps: `#` and one JSON document.
    pub body: Arc<str>,
    /// The references, in the order of their indices.
    pub slots: Vec<R>,
}

impl<R> CapData<R> {
    /// A value without references.
    pub fn data(body: impl Into<Arc<str>>) -> Self {
        CapData { body: body.into(), slots: Vec::new() }
    }

    /// Translates every slot, keeping order, length and body; fails with the first slot's error.
    pub fn try_map<S, E>(&self, translate: impl FnMut(&R) -> Result<S, E>) -> Result<CapData<S>, E> {
        let slots = self.slots.iter().map(translate).collect::<Result<_, E>>()?;
        Ok(CapData { body: self.body.clone(), slots })
    }

    /// Translates every slot, keeping order, length and body.
    pub fn map<S>(&self, translate: impl FnMut(&R) -> S) -> CapData<S> {
        CapData { body: self.body.clone(), slots: self.slots.iter().map(translate).collect() }
    }
}

/// One call: `methargs` decodes to `[method, args]`; `result` names the promise for the answer, if one is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message<R> {
    /// Method and arguments.
    pub methargs: CapData<R>,
    /// Where the answer goes; `None`: the sender wants no answer.
    pub result: Option<R>,
}

/// The settlement of one promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution<R> {
    /// Which promise.
    pub promise: R,
    /// Rejected rather than fulfilled.
    pub rejected: bool,
    /// The value or the reason.
    pub value: CapData<R>,
}
