//! A vat that does as it is told.

use super::{Call, Desk, Script, reference};
use crate::passable::Passable;
use capstan_model::capdata::Resolution;
use capstan_model::refs::VRef;
use capstan_model::smallcaps::{Value, decode, encode, render};
use capstan_model::vat::VatSyscall;
use std::collections::BTreeMap;

/// See [`super::puppet`]. References are held durably under `held.<name>`; what watched promises became stands under
/// `seen.<name>`, as `fulfilled <value>` or `rejected <reason>`.
#[derive(Debug, Default)]
pub(super) struct Puppet {
    /// Results that await the settlement of a promise. Lost with the process, like a JavaScript vat's continuations.
    forwards: BTreeMap<VRef, VRef>,
    /// Calls to make in a turn of its own: whom, which method. Lost with the process, like a timer.
    planned: Vec<(VRef, String)>,
}

impl Script for Puppet {
    fn called(&mut self, desk: &mut Desk<'_>, mut call: Call) {
        call.args = call.args.into_iter().map(|arg| filled_in(desk, arg)).collect();
        let name = call.text(0);
        let held = held(desk, &name);
        match (call.method.as_str(), held) {
            // keep(name, reference)
            ("keep", _) => {
                if let Some(reference) = call.reference(1) {
                    desk.set(&format!("held.{name}"), &reference.to_string());
                }
                desk.fulfil(call.result, ());
            }
            // give(name): what is kept, in a list
            ("give", Some(held)) => desk.fulfil(call.result, vec![held]),
            // object(name): a new object of this vat, kept
            ("object", _) => {
                let object = desk.object();
                desk.set(&format!("held.{name}"), &object.to_string());
                desk.fulfil(call.result, object);
            }
            // promise(name): a new promise of this vat, kept, in a list
            ("promise", _) => {
                let promise = desk.promise();
                desk.set(&format!("held.{name}"), &promise.to_string());
                desk.fulfil(call.result, vec![promise]);
            }
            // fulfil(name, value), break(name, text): settles a promise of this vat
            ("fulfil", Some(held)) => {
                desk.fulfil(Some(held), call.arg(1));
                desk.fulfil(call.result, ());
            }
            ("break", Some(held)) => {
                desk.reject(Some(held), &call.text(1));
                desk.fulfil(call.result, ());
            }
            // fulfil_both(name, value, other, value): as one group
            ("fulfil_both", Some(held)) => {
                let Some(other) = self::held(desk, &call.text(2)) else { return };
                let fulfilled =
                    |promise, value| Resolution { promise, rejected: false, value: encode(&value) };
                let group = vec![fulfilled(held, call.arg(1)), fulfilled(other, call.arg(3))];
                desk.syscall(VatSyscall::Resolve(group));
                desk.fulfil(call.result, ());
            }
            // pass_settled(name, method, as, value): calls what is kept with a promise fulfilled in the same crank
            ("pass_settled", Some(held)) => {
                let promise = desk.promise();
                desk.send_only(held, &call.text(1), vec![call.arg(2), promise.value()]);
                desk.fulfil(Some(promise), call.arg(3));
                desk.fulfil(call.result, ());
            }
            // whoami(): which object was called
            ("whoami", _) => desk.fulfil(call.result, call.target.to_string().as_str()),
            // call(name, method, arg…): calls what is kept and answers what it answers
            ("call", Some(held)) => {
                let promise = desk.send(held, &call.text(1), call.args.iter().skip(2).cloned().collect());
                if let Some(result) = call.result {
                    self.forwards.insert(promise, result);
                }
            }
            // begin(name, method, as, arg…): calls what is kept, keeps and watches the result as `as`
            ("begin", Some(held)) => {
                let promise = desk.send(held, &call.text(1), call.args.iter().skip(3).cloned().collect());
                let kept_as = call.text(2);
                desk.set(&format!("held.{kept_as}"), &promise.to_string());
                desk.set(&format!("watch.{promise}"), &kept_as);
                desk.fulfil(call.result, vec![promise]);
            }
            // tell(name, method, arg…): calls without a result
            ("tell", Some(held)) => {
                desk.send_only(held, &call.text(1), call.args.iter().skip(2).cloned().collect());
                desk.fulfil(call.result, ());
            }
            // later(name, method): calls without a result, in a turn of its own; afterwards `seen.later` counts
            ("later", Some(held)) => {
                self.planned.push((held, call.text(1)));
                desk.wake_later();
                desk.fulfil(call.result, ());
            }
            // misbehave(name, method): calls what is kept, then breaks the rules
            ("misbehave", Some(held)) => {
                desk.send(held, &call.text(1), Vec::new());
                desk.syscall(VatSyscall::DropImports(vec![VRef::ROOT]));
            }
            // watch(name): subscribes to a kept promise
            ("watch", Some(held)) => {
                desk.set(&format!("watch.{held}"), &name);
                desk.subscribe(held);
                desk.fulfil(call.result, ());
            }
            // hang(name): keeps its own result promise unanswered under that name
            ("hang", _) => {
                if let Some(result) = call.result {
                    desk.set(&format!("held.{name}"), &result.to_string());
                }
            }
            // drop(name): drops and retires a kept import
            ("drop", Some(held)) => {
                desk.remove(&format!("held.{name}"));
                desk.syscall(VatSyscall::DropImports(vec![held]));
                desk.syscall(VatSyscall::RetireImports(vec![held]));
                desk.fulfil(call.result, ());
            }
            // seen(name): what a watched promise became
            ("seen", _) => {
                let seen = desk.get(&format!("seen.{name}"));
                desk.fulfil(call.result, seen.as_deref().unwrap_or("nothing"));
            }
            (method, _) => desk.reject(call.result, &format!("{method} does not work with {name:?}")),
        }
    }

    fn woken(&mut self, desk: &mut Desk<'_>) {
        for (target, method) in std::mem::take(&mut self.planned) {
            desk.send_only(target, &method, Vec::new());
            let times = desk.next_number("times.later");
            desk.set("seen.later", &times.to_string());
        }
    }

    fn notified(&mut self, desk: &mut Desk<'_>, settled: Vec<Resolution<VRef>>) {
        for resolution in settled {
            let told = render(&resolution.value).unwrap_or_else(|error| error.to_string());
            desk.set(&format!("told.{}", resolution.promise), &told);
            if let Some(name) = desk.get(&format!("watch.{}", resolution.promise)) {
                let how = if resolution.rejected { "rejected" } else { "fulfilled" };
                let times = desk.next_number(&format!("times.{name}"));
                desk.set(&format!("seen.{name}"), &format!("{how} {told}"));
                let place = desk.next_number("places");
                desk.set(&format!("place.{place}"), &name);
                if times > 1 {
                    desk.set(&format!("twice.{name}"), &times.to_string());
                }
                if let Some(inner) = decode(&resolution.value).ok().and_then(|value| inner_reference(&value))
                {
                    desk.set(&format!("held.{name}.0"), &inner.to_string());
                }
            }
            if let Some(result) = self.forwards.remove(&resolution.promise) {
                let value = resolution.value.clone();
                desk.syscall(VatSyscall::Resolve(vec![Resolution { promise: result, value, ..resolution }]));
            }
        }
    }
}

/// The value with every text `$name` replaced by what is kept under that name.
fn filled_in(desk: &Desk<'_>, value: Value<VRef>) -> Value<VRef> {
    match value {
        Value::String(text) => match text.strip_prefix('$').and_then(|name| held(desk, name)) {
            Some(kept) => kept.value(),
            None => Value::String(text),
        },
        Value::Array(items) => Value::Array(items.into_iter().map(|item| filled_in(desk, item)).collect()),
        Value::Undefined | Value::Null | Value::Bool(_) | Value::Number(_) | Value::BigInt(_) => value,
        Value::Symbol(_) | Value::Record(_) | Value::Error { .. } | Value::Tagged { .. } => value,
        Value::Object { .. } | Value::Promise(_) => value,
    }
}

/// The reference that a value is, or that its first element is.
fn inner_reference(value: &Value<VRef>) -> Option<VRef> {
    match value {
        Value::Array(items) => items.first().and_then(reference),
        Value::Undefined | Value::Null | Value::Bool(_) | Value::Number(_) | Value::BigInt(_) => None,
        Value::String(_) | Value::Symbol(_) | Value::Record(_) | Value::Error { .. } => None,
        Value::Tagged { .. } => None,
        Value::Object { .. } | Value::Promise(_) => reference(value),
    }
}

fn held(desk: &Desk<'_>, name: &str) -> Option<VRef> {
    desk.get(&format!("held.{name}"))?.parse().ok()
}
