//! Scripts that answer at once.

use super::{Call, Desk, Script};
use capstan_model::refs::VRef;
use capstan_model::smallcaps::Value;

/// See [`super::counter`].
#[derive(Debug)]
pub(super) struct Counter;

impl Script for Counter {
    fn called(&mut self, desk: &mut Desk<'_>, call: Call) {
        match call.method.as_str() {
            "bump" => {
                let sum = desk.next_number("sum");
                desk.fulfil(call.result, number(sum));
            }
            "total" => {
                let sum = desk.number("sum");
                desk.fulfil(call.result, number(sum));
            }
            "note" => {
                let at = desk.next_number("notes");
                desk.set(&format!("note.{at:06}"), &call.text(0));
                desk.fulfil(call.result, number(at));
            }
            other => desk.reject(call.result, &format!("target has no method {other:?}")),
        }
    }
}

fn number(n: u64) -> Value<VRef> {
    // Counts in tests are far below 2^53.
    #[expect(clippy::cast_precision_loss, reason = "small")]
    Value::Number(n as f64)
}

/// See [`super::echo`].
#[derive(Debug)]
pub(super) struct Echo;

impl Script for Echo {
    fn called(&mut self, desk: &mut Desk<'_>, call: Call) {
        match call.method.as_str() {
            "echo" => desk.fulfil(call.result, call.arg(0)),
            "list" => desk.fulfil(call.result, Value::Array(call.args)),
            "fail" => desk.reject(call.result, &call.text(0)),
            other => desk.reject(call.result, &format!("target has no method {other:?}")),
        }
    }
}
