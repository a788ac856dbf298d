//! A turn: one transaction and what it will cause. If the transaction is undone, so is all it would have caused.

use crate::effect::{Dispatch, Effect, LogLevel, Step};
use crate::kernel::KernelConfig;
use capstan_model::peer::Millis;
use capstan_store::overlay::{Db, Savepoint, Tx};
use capstan_wire::seam::LinkOrder;

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
        Turn { tx: db.begin(), dispatches: Vec::new(), effects: Vec::new(), now, config }
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

    /// Keeps everything and adds what is to be done to `step`.
    pub(crate) fn commit(self, step: &mut Step) {
        let Turn { tx, mut dispatches, mut effects, .. } = self;
        tx.commit();
        step.dispatches.append(&mut dispatches);
        step.effects.append(&mut effects);
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
