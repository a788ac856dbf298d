//! What an audit says.

use serde::{Serialize, Serializer};
use std::fmt;

/// An invariant of the stored state; all but the first are those of 01 §8, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// The file can be read, and what must be unique is.
    File,
    /// 1: c-lists are bijections, their entries name what exists.
    Clists,
    /// 2: an object's owner has the one entry that exports it.
    Owners,
    /// 3: an object's counts are those of its sources.
    ObjectCounts,
    /// 4: a promise's count is that of its sources; its state, its queue and its value fit.
    Promises,
    /// 5: no number is above its counter.
    Counters,
    /// 6: queued messages name what exists.
    Queues,
    /// 7: a vat has a program, a root, a subcluster; a subcluster has vats.
    Vats,
    /// 8: a terminated vat has nothing but what is to be cleaned up.
    Terminated,
    /// 9: a vat store has a vat.
    VatStores,
    /// 10: a GC action has an endpoint.
    GcActions,
    /// 11: pinned objects exist.
    Pins,
    /// 12: nothing refers to what has no record.
    References,
}

impl Invariant {
    /// Every invariant, in order.
    pub const ALL: [Invariant; 13] = [
        Invariant::File,
        Invariant::Clists,
        Invariant::Owners,
        Invariant::ObjectCounts,
        Invariant::Promises,
        Invariant::Counters,
        Invariant::Queues,
        Invariant::Vats,
        Invariant::Terminated,
        Invariant::VatStores,
        Invariant::GcActions,
        Invariant::Pins,
        Invariant::References,
    ];

    /// Its number in 01 §8; 0 for [`Invariant::File`].
    pub fn number(self) -> u8 {
        match self {
            Invariant::File => 0,
            Invariant::Clists => 1,
            Invariant::Owners => 2,
            Invariant::ObjectCounts => 3,
            Invariant::Promises => 4,
            Invariant::Counters => 5,
            Invariant::Queues => 6,
            Invariant::Vats => 7,
            Invariant::Terminated => 8,
            Invariant::VatStores => 9,
            Invariant::GcActions => 10,
            Invariant::Pins => 11,
            Invariant::References => 12,
        }
    }

    /// What to do where it does not hold.
    pub fn advice(self) -> &'static str {
        match self {
            Invariant::File => "restore a backup",
            Invariant::Clists => {
                "terminate the vat, or forget the peer, that has the entry: its whole c-list goes with it"
            }
            Invariant::Owners => {
                "terminate the vat, or forget the peer, that owns or exports the object: it becomes an orphan"
            }
            Invariant::ObjectCounts => {
                "if the stored counts are higher, the object is merely kept too long; if they are lower, terminate the vats that use it, or restore a backup"
            }
            Invariant::Promises => {
                "if only the stored count is higher, the promise is merely kept too long; else terminate the vats that use it, or restore a backup"
            }
            Invariant::Counters => "restore a backup before the number is given out a second time",
            Invariant::Queues => {
                "nothing: the message is set aside when it comes up; `capstan dead-letters` shows it then"
            }
            Invariant::Vats => "terminate the vat or its subcluster and launch it again",
            Invariant::Terminated => {
                "start the daemon, which goes on with the clean-up of the vat; if this stays, restore a backup"
            }
            Invariant::VatStores => {
                "nothing: the rows are never read; a restored backup would be without them"
            }
            Invariant::GcActions => "nothing: the action is dropped when it comes up",
            Invariant::Pins => "unpin the object; if that is refused, restore a backup",
            Invariant::References => {
                "nothing, if the row is not needed: its use is refused or set aside; else restore a backup"
            }
        }
    }
}

/// Something found wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which invariant does not hold.
    pub invariant: Invariant,
    /// Where: the row, by table and key in words.
    pub place: String,
    /// What is wrong there.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {}: {}: {}", self.invariant.number(), self.place, self.what)
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut row = serializer.serialize_struct("Problem", 4)?;
        row.serialize_field("invariant", &self.invariant.number())?;
        row.serialize_field("where", &self.place)?;
        row.serialize_field("what", &self.what)?;
        row.serialize_field("advice", self.invariant.advice())?;
        row.end()
    }
}
