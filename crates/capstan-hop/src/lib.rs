//! The hop between a kernel and a network that runs in a process of its own (03 D.9).
//!
//! JSON-RPC 2.0, one message a line, over one duplex stream; both ends ask and answer. The kernel's end
//! ([`KernelEnd`]) takes the orders of `capstan_wire::seam` and reports its events, as a node in the same process would;
//! the network's end ([`serve`]) turns them back. [`NetworkProcess`] starts the process of the network and starts it
//! again when it dies.
//!
//! **Invariant:** the loop that reads the stream waits for nothing but the stream ([`rpc`]).
//!
//! **Invariant:** whatever fails between the two ends, a channel that was not judged is not used, and nothing else
//! comes of it: no session ends here.

mod fault;
mod kernel_end;
pub mod message;
mod network_end;
mod process;

pub mod rpc;

pub use fault::Fault;
pub use kernel_end::{Kernel, KernelEnd};
pub use network_end::{Network, Sink, VERDICT_MAX, serve};
pub use process::{NetworkProcess, StartError};
