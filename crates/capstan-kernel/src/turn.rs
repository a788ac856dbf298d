//! A turn: one transaction and what it will cause. If the transaction is undone, so is all it would have caused.

use crate::effect::{Dispatch, Effect, LogLevel, Step};
use crate::fault::Corrupt;
use crate::kernel::KernelConfig;
use crate::{audit, gc};
use capstan_model::peer::Millis;
use capstan_store::overlay::{Db, Savepoint, Tx};
use capstan_store::schema::{DeadLetterRow, DeadLetters};
use capstan_wire::seam::LinkOrder;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Dead letters kept; beyond it the oldest go, so that a repeated fault cannot fill the disk. Their numbers have no
/// gaps, so the first one kept tells how many are gone.
const DEAD_LETTERS_MAX: usize = 1000;

/// One transaction in the making.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    /// The rows.
    pub(crate) tx: Tx<'a>,
    /// Orders to our vats, given when the turn commits.
    pub(crate) dispatches: Vec<Dispatch>,
    /// Orders to the world, given when the turn is durable.
    pub(crate) effects: Vec<Effect>,
    /// When.
    pub(crate) now: Millis,
    /// What the kernel was told once.
    pub(crate) config: &'a KernelConfig,
    start: Savepoint,
}

/// A place in a turn to come back to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    rows: Savepoint,
    dispatches: usize,
    effects: usize,
}

impl<'a> Turn<'a> {
    pub(crate) fn begin(db: &'a mut Db, config: &'a KernelConfig, now: Millis) -> Self {
        let tx = db.begin();
        let start = tx.savepoint();
        Turn { tx, dispatches: Vec::new(), effects: Vec::new(), now, config, start }
    }

    /// Marks a place to come back to.
    pub(crate) fn mark(&self) -> Mark {
        Mark { rows: self.tx.savepoint(), dispatches: self.dispatches.len(), effects: self.effects.len() }
    }

    /// Undoes everything since `mark`.
    pub(crate) fn rollback_to(&mut self, mark: Mark) {
        self.tx.rollback_to(mark.rows);
        self.dispatches.truncate(mark.dispatches);
        self.effects.truncate(mark.effects);
    }

    /// Decides about everything whose counts reached zero and, if so configured, recounts all.
    pub(crate) fn finish(&mut self) -> Result<(), Corrupt> {
        gc::judge_candidates(&mut self.tx)?;
        if self.config.audit_every_transaction
            && let Some(problem) = audit::audit(self.tx.tables()).into_iter().next()
        {
            return Err(Corrupt::Audit(problem.to_string()));
        }
        Ok(())
    }

    fn keep(self, step: &mut Step) {
        let Turn { tx, mut dispatches, mut effects, .. } = self;
        tx.commit();
        step.dispatches.append(&mut dispatches);
        step.effects.append(&mut effects);
    }

    /// Undoes everything and leaves a dead letter.
    fn set_aside(mut self, item: &str, reason: &str, step: &mut Step) {
        self.tx.rollback_to(self.start);
        self.dispatches.clear();
        self.effects.clear();
        let number = next_number(&mut self.tx, "dead_letter");
        let row = DeadLetterRow { at: self.now, item: item.to_owned(), reason: reason.to_owned() };
        self.tx.put::<DeadLetters>(number, row);
        let kept: Vec<_> = self.tx.iter::<DeadLetters>().map(|(number, _)| *number).collect();
        let dropped = kept.get(..kept.len().saturating_sub(DEAD_LETTERS_MAX)).unwrap_or_default();
        for oldest in dropped {
            self.tx.delete::<DeadLetters>(oldest);
        }
        if let Some(last) = dropped.last() {
            self.log(LogLevel::Warn, format!("dead letters up to number {last} are not kept any more"));
        }
        self.log(LogLevel::Error, format!("set aside {item}: {reason}"));
        self.keep(step);
    }

    /// Orders something of the links.
    pub(crate) fn link(&mut self, order: LinkOrder) {
        self.effects.push(Effect::Link(order));
    }

    /// Says something in the log once the turn is durable.
    pub(crate) fn log(&mut self, level: LogLevel, text: impl Into<String>) {
        self.effects.push(Effect::Log { level, text: text.into() });
    }

    /// Draws the next number of the dispenser `name`; numbers start at 1 and never come twice.
    pub(crate) fn next_number(&mut self, name: &str) -> u64 {
        next_number(&mut self.tx, name)
    }
}

/// Draws the next number of the dispenser `name`; numbers start at 1 and never come twice.
pub(crate) fn next_number(tx: &mut Tx<'_>, name: &str) -> u64 {
    let key = name.into();
    let number = tx.get::<capstan_store::schema::Counters>(&key).copied().unwrap_or(1);
    tx.put::<capstan_store::schema::Counters>(key, number.saturating_add(1));
    number
}

/// Runs `body` as one transaction: kept with what it will cause, or, on a failed invariant or a panic, undone and
/// set aside as `item` with the returned reason (law L7).
pub(crate) fn transact<T>(
    db: &mut Db,
    config: &KernelConfig,
    now: Millis,
    step: &mut Step,
    item: impl Fn() -> String,
    body: impl FnOnce(&mut Turn<'_>) -> Result<T, Corrupt>,
) -> Result<T, String> {
    let mut turn = Turn::begin(db, config, now);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let out = body(&mut turn)?;
        turn.finish()?;
        Ok::<T, Corrupt>(out)
    }));
    let reason = match outcome {
        Ok(Ok(out)) => {
            turn.keep(step);
            return Ok(out);
        }
        Ok(Err(corrupt)) => corrupt.to_string(),
        Err(panic) => panic_text(panic.as_ref()),
    };
    turn.set_aside(&item(), &reason, step);
    Err(reason)
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panic: {}", text.unwrap_or_else(|| "no message".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use capstan_model::peer::PeerId;
    use capstan_store::schema::Counters;

    /// The reference names savepoints inside an open crank and buffers its outputs beside the store. Here a place in
    /// a turn is a value, and what the turn will cause is cut back together with its rows.
    #[test]
    fn k29_a_turn_that_is_taken_back_has_caused_nothing() {
        let (mut db, config) = (Db::default(), KernelConfig::new(PeerId::new("12D3KooWtest")));
        let mut turn = Turn::begin(&mut db, &config, Millis(0));
        turn.log(LogLevel::Info, "kept");
        let mark = turn.mark();
        for _ in 0..2 {
            assert_eq!(turn.next_number("object"), 1);
            turn.log(LogLevel::Info, "undone");
            turn.rollback_to(mark);
            assert_eq!((turn.effects.len(), turn.dispatches.len()), (1, 0));
            assert!(turn.tx.iter::<Counters>().next().is_none());
        }
        let mut step = Step::default();
        turn.set_aside("an item", "a reason", &mut step);
        let said: Vec<_> = step.effects.iter().map(|effect| format!("{effect:?}")).collect();
        assert!(said.len() == 1 && said[0].contains("set aside an item: a reason"), "{said:?}");
    }
}
