//! The columns of every table, in the order of the `INSERT` and `SELECT` statements.

use super::cell::{BadCell, Bind, Cell, Cells, Fields};
use crate::overlay::Table;
use crate::schema::*;
use capstan_model::capdata::CapData;
use capstan_model::id::{GrantId, KRef, ObjectId, PromiseId, RemoteId, SubclusterId, VatId};
use capstan_model::vat::{VatCode, VatLimits};

/// A table as SQL knows it.
pub(super) trait SqlTable: Table<Row: Cells> {
    /// What it is keyed by.
    const KEY_COLUMNS: &'static [&'static str];
    /// What else it stores.
    const ROW_COLUMNS: &'static [&'static str];
    fn put_key(key: &Self::Key, to: &mut Bind<'_, '_>) -> rusqlite::Result<()>;
    fn take_key(from: &mut Fields<'_>) -> Result<Self::Key, BadCell>;
    /// What stands for a row that cannot be understood; `None`: nothing can.
    fn unreadable(_reason: String) -> Option<Self::Row> {
        None
    }
}

/// A table keyed by what its key looks like everywhere else.
macro_rules! keyed {
    ($table:ident [$($key:literal)*] [$($column:literal)*]) => {
        impl SqlTable for $table {
            const KEY_COLUMNS: &'static [&'static str] = &[$($key),*];
            const ROW_COLUMNS: &'static [&'static str] = &[$($column),*];
            fn put_key(key: &Self::Key, to: &mut Bind<'_, '_>) -> rusqlite::Result<()> {
                to.put(key)
            }
            fn take_key(from: &mut Fields<'_>) -> Result<Self::Key, BadCell> {
                from.take()
            }
        }
    };
}

/// A table of entities, keyed by their numbers.
macro_rules! numbered {
    ($table:ident $id:ident $key:literal [$($column:literal)*]) => {
        impl SqlTable for $table {
            const KEY_COLUMNS: &'static [&'static str] = &[$key];
            const ROW_COLUMNS: &'static [&'static str] = &[$($column),*];
            fn put_key(key: &Self::Key, to: &mut Bind<'_, '_>) -> rusqlite::Result<()> {
                to.put(&key.0)
            }
            fn take_key(from: &mut Fields<'_>) -> Result<Self::Key, BadCell> {
                from.take().map($id)
            }
        }
    };
}

keyed!(Meta["key"]["value"]);
keyed!(Counters["name"]["next"]);
numbered!(Objects ObjectId "ko" ["owner" "reachable" "recognizable" "revoked"]);
numbered!(Promises PromiseId "kp" ["state" "decider" "subscribers" "body" "slots" "count"]);
keyed!(Clist ["endpoint" "kref"] ["eref" "reachable" "last_mention"]);
keyed!(PromiseQueue ["promise" "number"] ["target" "body" "slots" "result"]);
keyed!(GcActions ["endpoint" "kind" "object"] []);
keyed!(Reaps["number"]["endpoint"]);
numbered!(Vats VatId "vat" [
    "subcluster" "name" "code" "parameters" "crank_deadline_ms" "memory_bytes_max" "syscalls_max"
    "body_units_max" "slots_max" "store_bytes_max" "queued_max" "endowments" "phase" "failure" "incarnation" "next_object"
    "next_promise" "deliveries"
]);
keyed!(Code ["hash"] ["format" "name" "text"]);
keyed!(VatStore ["vat" "key"] ["value"]);
numbered!(Subclusters SubclusterId "subcluster" ["bootstrap" "config" "launching" "system"]);
keyed!(Services["name"]["object"]);
numbered!(Remotes RemoteId "remote" ["peer" "hints" "next_object" "next_promise" "closed" "restarts_seen"]);
keyed!(Sessions ["peer"] [
    "epoch" "base" "una" "sent" "una_digest" "recv" "recv_digest" "left_incarnation" "left_epoch"
    "classic_born" "outbox_bytes"
]);
keyed!(Outbox ["remote" "seq"] ["text" "digest" "retires"]);
keyed!(PeerIncarnations ["peer"] ["incarnation" "seen"]);
keyed!(Relays["number"]["address" "last_seen" "bootstrap"]);
keyed!(Redemptions ["reply_key"] ["remote" "promise" "deadline"]);
numbered!(Grants GrantId "url" [
    "secret_hash" "object" "issued" "last_used" "expires" "uses_left" "parent" "revoked"
]);
keyed!(Pins["object"]["count"]);
keyed!(Holds ["kref" "kind"] ["count"]);
keyed!(DeadLetters ["number"] ["at" "item" "reason"]);

impl SqlTable for RunQueue {
    const KEY_COLUMNS: &'static [&'static str] = &["number"];
    const ROW_COLUMNS: &'static [&'static str] =
        &["kind", "target", "body", "slots", "result", "endpoint", "promise"];
    fn put_key(key: &Self::Key, to: &mut Bind<'_, '_>) -> rusqlite::Result<()> {
        to.put(key)
    }
    fn take_key(from: &mut Fields<'_>) -> Result<Self::Key, BadCell> {
        from.take()
    }
    fn unreadable(reason: String) -> Option<QueueItem> {
        Some(QueueItem::Unreadable(reason.into()))
    }
}

/// Rows whose fields are columns, in this order. The pattern is exhaustive: a new field must be stored too.
macro_rules! fields {
    ($type:ident { $($field:ident),* }) => {
        impl Cells for $type {
            fn put(&self, to: &mut Bind<'_, '_>) -> rusqlite::Result<()> {
                let $type { $($field),* } = self;
                $( to.put($field)?; )*
                Ok(())
            }
            fn take(from: &mut Fields<'_>) -> Result<Self, BadCell> {
                $( let $field = from.take()?; )*
                Ok($type { $($field),* })
            }
        }
    };
}

fields!(ObjectRow { owner, reachable, recognizable, revoked });
fields!(PromiseRow { state, count });
fields!(ClistRow { eref, reachable, last_mention });
fields!(SendItem { target, methargs, result });
fields!(VatRow {
    subcluster,
    name,
    code,
    parameters,
    limits,
    endowments,
    phase,
    incarnation,
    next_object,
    next_promise,
    deliveries
});
fields!(VatLimits {
    crank_deadline_ms,
    memory_bytes_max,
    syscalls_max,
    body_units_max,
    slots_max,
    store_bytes_max,
    queued_max
});
fields!(VatCode { format, name, text });
fields!(SubclusterRow { bootstrap, config, launching, system });
fields!(RemoteRow { peer, hints, next_object, next_promise, closed, restarts_seen });
fields!(SessionRow {
    epoch,
    base,
    una,
    sent,
    una_digest,
    recv,
    recv_digest,
    left,
    classic_born,
    outbox_bytes
});
fields!(OutboxRow { text, digest, retires });
fields!(PeerIncarnationRow { incarnation, seen });
fields!(RelayRow { address, last_seen, bootstrap });
fields!(RedemptionRow { remote, promise, deadline });
fields!(GrantRow { secret_hash, object, issued, last_used, expires, uses_left, parent, revoked });
fields!(DeadLetterRow { at, item, reason });

impl Cells for CapData<KRef> {
    fn put(&self, to: &mut Bind<'_, '_>) -> rusqlite::Result<()> {
        to.put(&self.body)?;
        to.put(&self.slots)
    }
    fn take(from: &mut Fields<'_>) -> Result<Self, BadCell> {
        Ok(CapData { body: from.take()?, slots: from.take()? })
    }
}

/// Both columns or neither.
impl<A: Cell, B: Cell> Cells for Option<(A, B)> {
    fn put(&self, to: &mut Bind<'_, '_>) -> rusqlite::Result<()> {
        match self {
            Some(both) => to.put(both),
            None => to.nulls(2),
        }
    }
    fn take(from: &mut Fields<'_>) -> Result<Self, BadCell> {
        let halves: (Option<A>, Option<B>) = from.take()?;
        match halves {
            (Some(a), Some(b)) => Ok(Some((a, b))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(from.bad("is NULL, the column before it is not")),
            (None, Some(_)) => Err(from.bad("is not NULL, the column before it is")),
        }
    }
}

/// `phase`, `failure`.
impl Cells for VatPhase {
    fn put(&self, to: &mut Bind<'_, '_>) -> rusqlite::Result<()> {
        let (word, failure) = match self {
            VatPhase::Launching => ("launching", None),
            VatPhase::Starting => ("starting", None),
            VatPhase::Running => ("running", None),
            VatPhase::Failed(failure) => ("failed", Some(failure)),
            VatPhase::Terminated => ("terminated", None),
        };
        to.word(word)?;
        match failure {
            Some(failure) => to.put(failure),
            None => to.nulls(1),
        }
    }
    fn take(from: &mut Fields<'_>) -> Result<Self, BadCell> {
        let word: String = from.take()?;
        let phase = match word.as_str() {
            "failed" => return from.take().map(VatPhase::Failed),
            "launching" => VatPhase::Launching,
            "starting" => VatPhase::Starting,
            "running" => VatPhase::Running,
            "terminated" => VatPhase::Terminated,
            _ => return Err(from.bad(format!("is no phase of a vat: {word:?}"))),
        };
        from.nulls(1)?;
        Ok(phase)
    }
}

/// `state`, `decider`, `subscribers`, `body`, `slots`.
impl Cells for PromiseState {
    fn put(&self, to: &mut Bind<'_, '_>) -> rusqlite::Result<()> {
        let mut settled = |word, value| {
            to.word(word)?;
            to.nulls(2)?;
            to.put(value)
        };
        match self {
            PromiseState::Fulfilled(value) => settled("fulfilled", value),
            PromiseState::Rejected(reason) => settled("rejected", reason),
            PromiseState::Unresolved { decider, subscribers } => {
                to.word("unresolved")?;
                to.put(decider)?;
                to.put(subscribers)?;
                to.nulls(2)
            }
        }
    }
    fn take(from: &mut Fields<'_>) -> Result<Self, BadCell> {
        let word: String = from.take()?;
        match word.as_str() {
            "unresolved" => {
                let (decider, subscribers) = from.take()?;
                from.nulls(2)?;
                Ok(PromiseState::Unresolved { decider, subscribers })
            }
            "fulfilled" => {
                from.nulls(2)?;
                from.take().map(PromiseState::Fulfilled)
            }
            "rejected" => {
                from.nulls(2)?;
                from.take().map(PromiseState::Rejected)
            }
            _ => Err(from.bad(format!("is no state of a promise: {word:?}"))),
        }
    }
}

/// `kind`; `target`, `body`, `slots`, `result`; `endpoint`, `promise`. The reason why an earlier row could not be
/// understood stands in `body`.
impl Cells for QueueItem {
    fn put(&self, to: &mut Bind<'_, '_>) -> rusqlite::Result<()> {
        match self {
            QueueItem::Send(send) => {
                to.word("send")?;
                to.put(send)?;
                to.nulls(2)
            }
            QueueItem::Notify { endpoint, promise } => {
                to.word("notify")?;
                to.nulls(4)?;
                to.put(endpoint)?;
                to.put(promise)
            }
            QueueItem::Unreadable(reason) => {
                to.word("unreadable")?;
                to.nulls(1)?;
                to.put(reason)?;
                to.nulls(4)
            }
        }
    }
    fn take(from: &mut Fields<'_>) -> Result<Self, BadCell> {
        let word: String = from.take()?;
        match word.as_str() {
            "send" => {
                let send = from.take()?;
                from.nulls(2)?;
                Ok(QueueItem::Send(send))
            }
            "notify" => {
                from.nulls(4)?;
                Ok(QueueItem::Notify { endpoint: from.take()?, promise: from.take()? })
            }
            "unreadable" => {
                from.nulls(1)?;
                let reason = from.take()?;
                from.nulls(4)?;
                Ok(QueueItem::Unreadable(reason))
            }
            _ => Err(from.bad(format!("is no kind of queue item: {word:?}"))),
        }
    }
}
