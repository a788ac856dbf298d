//! A vat in a process of its own, which can do nothing but talk to its parent.
//!
//! [`Processes`] takes the orders that `capstan_js::Workers` takes and tells the same events, so that a host can have
//! either. Each vat gets a child process that runs [`serve`]: one thread with one engine behind two pipes. Before the
//! vat's code is read, the child gives up opening files, sockets, processes, threads and executable memory (`confine`).
//! What breaks the engine itself then has this one vat, and its end is this one vat's end.
//!
//! The parent believes nothing: what a child says is about its own vat and its present run, in its turn, or the child is
//! ended.

mod confine;
mod frame;
mod inside;
mod outside;
mod said;

pub use confine::{ConfineError, confine};
pub use inside::{ServeError, serve};
pub use outside::Processes;
