//! The libp2p node: listening, dialling, framing. It carries out what the link machine of `capstan-wire` wants and
//! tells it what happened to sockets.
//!
//! **Invariant:** no policy and no durable state; nothing above this crate knows libp2p.
//!
//! **Flow control.** A channel's reader has at most [`BATCHES_AHEAD`] batches of frames under way. Whoever consumes
//! the events calls [`Node::consumed`] once for each [`capstan_wire::seam::LinkEvent::FramesRead`] it has dealt with;
//! until then the reader stops reading, and the peer's writes stop in turn.

mod address;
mod channels;
mod config;
mod fault;
mod framing;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod gate;
mod node;
mod reference;
mod relay;
mod relays;
mod stream;

pub use config::{NetError, NodeConfig};
pub use node::Node;
pub use relay::{Relay, RelayConfig};
pub use stream::BATCHES_AHEAD;
