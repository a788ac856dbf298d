//! Vats in a few lines of Rust, so that a test decides every syscall.
//!
//! A script sees deliveries and speaks through a [`Desk`]. All that must outlive a restart goes to the desk's store,
//! which the kernel keeps with the vat, as it does for a JavaScript vat.

mod counter;
mod desk;
mod puppet;

pub use desk::Desk;

use capstan_model::capdata::Resolution;
use capstan_model::refs::VRef;
use capstan_model::smallcaps::Value;
use std::fmt::Debug;

/// One call, decoded.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which of the vat's objects.
    pub target: VRef,
    /// Which method.
    pub method: String,
    /// With what.
    pub args: Vec<Value<VRef>>,
    /// Where the answer goes.
    pub result: Option<VRef>,
}

impl Call {
    /// The argument at `at`, or `undefined`.
    pub fn arg(&self, at: usize) -> Value<VRef> {
        self.args.get(at).cloned().unwrap_or(Value::Undefined)
    }

    /// The argument at `at` as text; numbers count as text too.
    pub fn text(&self, at: usize) -> String {
        match self.arg(at) {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Undefined | Value::Null | Value::Bool(_) | Value::BigInt(_) | Value::Symbol(_) => {
                String::new()
            }
            Value::Array(_) | Value::Record(_) | Value::Error { .. } | Value::Tagged { .. } => String::new(),
            Value::Object { .. } | Value::Promise(_) => String::new(),
        }
    }

    /// The argument at `at` as a reference.
    pub fn reference(&self, at: usize) -> Option<VRef> {
        reference(&self.arg(at))
    }
}

/// The reference that a value is.
pub fn reference(value: &Value<VRef>) -> Option<VRef> {
    match value {
        Value::Object { slot, .. } | Value::Promise(slot) => Some(*slot),
        Value::Undefined | Value::Null | Value::Bool(_) | Value::Number(_) | Value::BigInt(_) => None,
        Value::String(_) | Value::Symbol(_) | Value::Array(_) | Value::Record(_) => None,
        Value::Error { .. } | Value::Tagged { .. } => None,
    }
}

/// How a vat behaves.
pub trait Script: Debug {
    /// Somebody calls one of its objects.
    fn called(&mut self, desk: &mut Desk<'_>, call: Call);

    /// Promises it subscribed to are settled.
    fn notified(&mut self, desk: &mut Desk<'_>, settled: Vec<Resolution<VRef>>) {
        let _ = (desk, settled);
    }

    /// Objects that it had imported are gone.
    fn retired(&mut self, desk: &mut Desk<'_>, gone: &[VRef]) {
        let _ = (desk, gone);
    }

    /// A turn of its own, asked for with [`Desk::wake_later`].
    fn woken(&mut self, desk: &mut Desk<'_>) {
        let _ = desk;
    }
}

/// A script that can be launched: its name stands in the vat's code, so that a restarted kernel finds it again.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    pub(crate) name: &'static str,
    pub(crate) make: fn() -> Box<dyn Script>,
}

const PROGRAMS: [Program; 4] = [counter(), echo(), puppet(), crate::storm::agent()];

/// Counts: `bump` adds one and answers the sum, `total` answers it, `note(text)` appends to a durable log and
/// answers its length.
pub const fn counter() -> Program {
    Program { name: "counter", make: || Box::new(counter::Counter) }
}

/// Answers: `echo(x)` with `x`, `list(x…)` with the list, `fail(text)` with an error.
pub const fn echo() -> Program {
    Program { name: "echo", make: || Box::new(counter::Echo) }
}

/// Does as it is told; see the methods in its source. Holds references by name, calls them, watches promises, makes
/// promises and settles them later.
pub const fn puppet() -> Program {
    Program { name: "puppet", make: || Box::<puppet::Puppet>::default() }
}

pub(crate) fn program(name: &str) -> Option<Program> {
    PROGRAMS.into_iter().find(|program| program.name == name)
}
