//! What happened, as far as it counts: a crash takes the part that was not durable.

use capstan_model::id::{PromiseId, VatId};
use capstan_model::refs::VRef;
use std::collections::{BTreeMap, BTreeSet};

/// Who sent a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sender {
    Host,
    Vat(VatId),
}

/// By what name a message goes to its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// An object.
    Object,
    /// A promise, in the sender's words.
    Promise(Result<PromiseId, VRef>),
    /// A promise that the sender settled in the same crank: what waited on it takes the place of the settlement, behind
    /// what was sent before that (02 §4.4).
    Own,
}

/// One fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    /// The crank or request that sent the message was kept.
    Accepted { number: u64, sender: Sender, way: Way },
    /// The crank that executed the message was kept.
    Executed { number: u64, vat: VatId },
}

/// All facts, in order.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    facts: Vec<Fact>,
    accepted: BTreeSet<u64>,
    executed: BTreeSet<u64>,
}

impl Ledger {
    pub(super) fn len(&self) -> usize {
        self.facts.len()
    }

    /// Notes a fact; returns what is wrong with it.
    pub(super) fn note(&mut self, fact: Fact) -> Result<(), String> {
        self.facts.push(fact);
        match fact {
            Fact::Accepted { number, .. } => drop(self.accepted.insert(number)),
            Fact::Executed { number, .. } => {
                if !self.accepted.contains(&number) {
                    return Err(format!("message {number} was executed, which no kept crank sent"));
                }
                if !self.executed.insert(number) {
                    return Err(format!("message {number} was executed twice"));
                }
            }
        }
        Ok(())
    }

    /// Only the first `len` facts are durable.
    pub(super) fn cut(&mut self, len: usize) {
        let facts = std::mem::take(&mut self.facts);
        *self = Ledger::default();
        for fact in facts.into_iter().take(len) {
            // It was sound before, and is a beginning of what it was.
            let _ = self.note(fact);
        }
    }

    pub(super) fn is_executed(&self, number: u64) -> bool {
        self.executed.contains(&number)
    }

    /// Messages of vats to objects that were accepted and never executed.
    pub(super) fn unheard(&self) -> Vec<u64> {
        let to_objects = self.facts.iter().filter_map(|fact| match fact {
            Fact::Accepted { number, sender: Sender::Vat(_), way: Way::Object } => Some(*number),
            Fact::Accepted { .. } | Fact::Executed { .. } => None,
        });
        to_objects.filter(|number| !self.executed.contains(number)).collect()
    }

    /// Finds messages of one sender that overtook each other on their way to one vat, or on one promise (02 §4.4).
    pub(super) fn overtaken(&self) -> Option<String> {
        let mut sent = BTreeMap::new();
        let mut last: BTreeMap<(Sender, VatId, Way), u64> = BTreeMap::new();
        for fact in &self.facts {
            match *fact {
                Fact::Accepted { number, sender, way } => drop(sent.insert(number, (sender, way))),
                Fact::Executed { number, vat } => {
                    let Some(&(sender, way)) = sent.get(&number).filter(|(_, way)| *way != Way::Own) else {
                        continue;
                    };
                    let before = last.insert((sender, vat, way), number).unwrap_or(0);
                    if before > number {
                        return Some(format!("{before} of {sender:?} was executed before {number} in {vat}"));
                    }
                }
            }
        }
        None
    }
}
