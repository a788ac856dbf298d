//! The child: one vat between two pipes.

use crate::confine::{ConfineError, confine};
use crate::frame;
use crate::said::{Order, Told};
use capstan_js::{Surroundings, VatEvent, Workers};
use std::io::{self, Read, Write};
use std::process::exit;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use thiserror::Error;

/// Why a vat's process ended by itself.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The pipe from the parent failed.
    #[error("cannot hear the parent: {0}")]
    Pipe(#[from] io::Error),
    /// The parent's first order was no start, or a later one was.
    #[error("the parent gave an order out of turn")]
    Order,
    /// The rights could not be given up, so the vat was not started.
    #[error(transparent)]
    Confine(#[from] ConfineError),
}

/// Runs the one vat that `orders` tells of until they end; answers go to `told`. Nothing else may be written there.
///
/// The calling process gives up its rights for good ([`confine`]). When the parent no longer listens, the process exits.
pub fn serve(mut orders: impl Read, told: impl Write + Send + 'static) -> Result<(), ServeError> {
    let Some(first) = frame::read::<Order>(&mut orders)? else { return Ok(()) };
    let Order::Start { start, allowed_globals } = first else { return Err(ServeError::Order) };
    let told = Arc::new(Mutex::new(told));
    let tell = move |said: &Told| {
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if frame::write(&mut *told, said).is_err() {
            exit(1);
        }
    };
    // One vat, which waits for its answer: there is never a second question.
    let (answers, answered) = channel();
    let answered = Mutex::new(answered);
    let ask = tell.clone();
    let exists = move |_: &_, path: &str| {
        ask(&Told::Exists(path.to_owned()));
        let answer = answered.lock().unwrap_or_else(PoisonError::into_inner).recv();
        answer.unwrap_or_else(|_| Err("fs.existsSync: nobody answers".to_owned()))
    };
    let allowed_globals = allowed_globals.map(Into::into);
    let surroundings = Surroundings { allowed_globals, exists: Arc::new(exists) };
    // Its threads are there before the right to make any is given up.
    let workers = Workers::among(surroundings, 1, move |event| tell(&as_told(event)));
    confine(&start.limits)?;
    let (vat, incarnation) = (start.vat, start.incarnation);
    workers.start(*start).map_err(|_| ServeError::Order)?;
    while let Some(order) = frame::read::<Order>(&mut orders)? {
        match order {
            Order::Start { .. } => return Err(ServeError::Order),
            // Refused only when its thread was given up, which the parent hears.
            Order::Deliver(batch) => drop(workers.deliver(vat, incarnation, batch)),
            Order::Fetched(id, outcome) => workers.fetched(vat, incarnation, id, outcome),
            Order::Looked(id, outcome) => workers.looked(vat, incarnation, id, outcome),
            // Nobody waits any more when the thread was given up.
            Order::Exists(found) => drop(answers.send(found)),
        }
    }
    Ok(())
}

fn as_told(event: VatEvent) -> Told {
    match event {
        VatEvent::Started { result, .. } => Told::Started(result),
        VatEvent::Replied { replies, .. } => Told::Replied(replies),
        VatEvent::Died { fault, .. } => Told::Died(fault),
        VatEvent::Woken { .. } => Told::Woken,
        VatEvent::Log { level, console, text, .. } => Told::Log { level, console, text },
    }
}
