//! Promises of vat code that were rejected while nobody listened: written to the vat's log, and nothing else (04 §4).
//!
//! The list belongs to the thread, for the engine's callback must be `Send` and values of the realm are not; a
//! thread executes one delivery of one vat at a time.
//!
//! **Invariant:** the list is empty whenever no engine runs, so that no value outlives its heap.

use rquickjs::{Ctx, Function, Object, Persistent, Promise, Runtime, Value};
use std::cell::RefCell;

/// Unheard rejections kept for the log in one delivery; each keeps its promise and reason alive.
const KEPT_MAX: usize = 100;

struct Unheard {
    promise: Persistent<Value<'static>>,
    reason: Persistent<Value<'static>>,
}

thread_local! {
    static UNHEARD: RefCell<Vec<Unheard>> = const { RefCell::new(Vec::new()) };
}

/// Has the engine tell of rejections.
pub(crate) fn watch(runtime: &Runtime) {
    runtime.set_host_promise_rejection_tracker(Some(Box::new(|ctx, promise, reason, heard| {
        if heard {
            return forget(&ctx, &promise);
        }
        UNHEARD.with_borrow_mut(|kept| {
            if kept.len() < KEPT_MAX {
                let (promise, reason) = (Persistent::save(&ctx, promise), Persistent::save(&ctx, reason));
                kept.push(Unheard { promise, reason });
            }
        });
    })));
}

/// Takes a promise off the list whose outcome the host itself looks at.
pub(crate) fn heard<'js>(ctx: &Ctx<'js>, promise: &Promise<'js>) {
    forget(ctx, promise.as_value());
}

fn forget<'js>(ctx: &Ctx<'js>, promise: &Value<'js>) {
    let is_it = |one: &Unheard| one.promise.clone().restore(ctx).is_ok_and(|known| known == *promise);
    let gone = UNHEARD.with_borrow_mut(|kept| {
        // The latest are the likeliest: most rejections are taken up at once.
        let index = kept.iter().rposition(is_it)?;
        Some(kept.remove(index))
    });
    drop(gone);
}

/// Writes what is left to the log and empties the list.
pub(crate) fn report<'js>(ctx: &Ctx<'js>, side: &Object<'js>) {
    let kept = UNHEARD.take();
    if kept.is_empty() {
        return;
    }
    let Ok(tell) = side.get::<_, Function>("unheard") else { return };
    for one in kept {
        // A reason may be a trap; if describing it throws, there is no line.
        if let Ok(reason) = one.reason.restore(ctx)
            && tell.call::<_, ()>((reason,)).is_err()
        {
            ctx.catch();
        }
    }
}

/// Empties the list without a word when it goes, even if that is by unwinding.
pub(crate) struct Emptied;

impl Drop for Emptied {
    fn drop(&mut self) {
        drop(UNHEARD.take());
    }
}
