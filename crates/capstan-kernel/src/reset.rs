//! Reset: everything but the identity is forgotten, and the kernel goes on as a new incarnation (02 §14).

use crate::effect::{Dispatch, Effect, LogLevel, Step};
use crate::flight::Volatile;
use crate::host_op::{Answer, Refusal};
use crate::input::RequestId;
use crate::kernel::Kernel;
use crate::turn::{Turn, transact};
use crate::{activity, remote};
use capstan_model::peer::{Incarnation, Millis};
use capstan_store::schema::{Counters, HandlerRow, Handlers, Meta, VatPhase, Vats, Waiters};
use std::sync::Arc;

/// What survives a reset, by its key in the table of texts: who this kernel is.
const IDENTITY: [&str; 4] = ["keySeed", "peerId", "ocapURLKey", PHRASE];
/// The key of the words that the identity can be made from again, until they have been told.
pub(crate) const PHRASE: &str = "recoveryPhrase";

impl Kernel {
    /// Forgets everything in one transaction, so that a crash leaves the old state or the new one.
    ///
    /// Peers meet another incarnation, as after a start on an empty store. The number dispensers go on: what a client or
    /// a worker still calls by number never comes to mean something new.
    pub(crate) fn reset(&mut self, now: Millis, request: RequestId, life: &Incarnation, step: &mut Step) {
        let waiting: Vec<_> = self.db.iter::<Waiters>().map(|((_, other), ())| RequestId(*other)).collect();
        let running = self.db.iter::<Vats>().filter(|(_, row)| row.phase != VatPhase::Terminated);
        let stops: Vec<_> =
            running.map(|(vat, row)| Dispatch::Stop { vat: *vat, incarnation: row.incarnation }).collect();
        let peers = remote::known_peers(&self.db, &self.channels);
        let item = || format!("reset for request {}", request.0);
        let wiped = transact(&mut self.db, &self.config, now, step, item, |turn| {
            wipe(turn, life);
            Ok(())
        });
        if let Err(reason) = wiped {
            step.effects.push(Effect::Answer { request, answer: Err(Refusal::Internal(reason)) });
            return;
        }
        step.dispatches.extend(stops.into_iter().rev());
        remote::forget_everyone(&mut self.channels, peers, step);
        let fresh = Volatile { deliveries: self.volatile.deliveries, ..Volatile::default() };
        let old = std::mem::replace(&mut self.volatile, fresh);
        let waiting = waiting.into_iter().chain(old.requests());
        step.effects.extend(waiting.map(|request| Effect::Answer { request, answer: Err(Refusal::Reset) }));
        step.effects.push(Effect::Answer { request, answer: Ok(Answer::Done) });
    }
}

fn wipe(turn: &mut Turn<'_>, life: &Incarnation) {
    let own = turn.tx.iter::<Meta>().filter(|(key, _)| IDENTITY.contains(&&***key));
    let own: Vec<(Arc<str>, Arc<str>)> = own.map(|(key, text)| (key.clone(), text.clone())).collect();
    let numbers: Vec<(Arc<str>, u64)> =
        turn.tx.iter::<Counters>().map(|(name, next)| (name.clone(), *next)).collect();
    let handlers: Vec<_> =
        turn.tx.iter::<Handlers>().map(|(name, row)| (name.clone(), row.clone())).collect();
    turn.tx.delete_everything();
    // The process still has the code of its services; their objects are made anew when they are named.
    for (name, row) in handlers {
        turn.tx.put::<Handlers>(name, HandlerRow { holds: None, calls: 0, ..row });
    }
    for (key, text) in own {
        turn.tx.put::<Meta>(key, text);
    }
    for (name, next) in numbers {
        turn.tx.put::<Counters>(name, next);
    }
    turn.tx.put::<Meta>("incarnation".into(), life.as_str().into());
    activity::note_activity(&mut turn.tx, turn.now);
    remote::give_relays(turn);
    turn.log(LogLevel::Warn, format!("the kernel was reset; it goes on as incarnation {}", life.short()));
}
