//! Looking: rows, frames, logs, and what must hold when all is done.

use super::{KernelId, World};
use capstan_model::id::{EndpointId, ObjectId, RemoteId};
use capstan_model::peer::PeerId;
use capstan_model::refs::{ERef, RefKind, Side};
use capstan_store::overlay::Db;
use capstan_store::schema::{
    Clist, DeadLetters, GcActions, HoldKind, Holds, Outbox, Redemptions, RemotesByPeer, RunQueue,
    ServiceCalls, SessionRow, Sessions, VatStore, Waiters,
};
use std::collections::BTreeSet;
use std::sync::Arc;

impl World {
    /// The state of a kernel.
    ///
    /// # Panics
    /// If it is dead: then look at [`World::rows`].
    #[track_caller]
    pub fn db(&self, kernel: KernelId) -> &Db {
        match &self.node(kernel).process {
            Some(process) => process.kernel.db(),
            None => panic!("{} is dead", self.node(kernel).name),
        }
    }

    /// The remote that stands for a peer.
    pub fn remote(&self, kernel: KernelId, peer: &PeerId) -> Option<RemoteId> {
        self.db(kernel).get::<RemotesByPeer>(peer).copied()
    }

    /// The remote of `kernel` that stands for `other`.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn remote_of(&self, kernel: KernelId, other: KernelId) -> RemoteId {
        match self.remote(kernel, &self.peer(other)) {
            Some(rid) => rid,
            None => panic!("no remote for {}", self.node(other).name),
        }
    }

    /// The sequence state of `kernel` toward `other`.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn session(&self, kernel: KernelId, other: KernelId) -> &SessionRow {
        match self.db(kernel).get::<Sessions>(&self.peer(other)) {
            Some(row) => row,
            None => panic!("no session with {}", self.node(other).name),
        }
    }

    /// How many frames wait for their acknowledgement.
    pub fn outbox_len(&self, kernel: KernelId) -> usize {
        self.db(kernel).len::<Outbox>()
    }

    /// Every text that `from` ever wrote to `to`, handshakes included.
    pub fn frames(&self, from: KernelId, to: KernelId) -> Vec<Arc<str>> {
        self.written.get(&(from, to)).cloned().unwrap_or_default()
    }

    /// The numbered frames among them.
    pub fn numbered(&self, from: KernelId, to: KernelId) -> Vec<Arc<str>> {
        self.frames(from, to).into_iter().filter(|text| text.starts_with("{\"seq\":")).collect()
    }

    /// Forgets the frames and dials noted so far.
    pub fn forget_frames(&mut self) {
        self.written.clear();
        self.dials.clear();
    }

    /// How often `from` dialled `to`.
    pub fn dials(&self, from: KernelId, to: KernelId) -> u64 {
        self.dials.get(&(from, to)).copied().unwrap_or(0)
    }

    /// What the kernel logged at info or above, in all its lives.
    pub fn log(&self, kernel: KernelId) -> &[String] {
        &self.node(kernel).log
    }

    /// A value in a vat's durable store.
    #[track_caller]
    pub fn stored(&self, kernel: KernelId, root: ObjectId, key: &str) -> Option<Arc<str>> {
        let vat = self.vat_of(kernel, root);
        self.db(kernel).get::<VatStore>(&(vat, key.into())).cloned()
    }

    /// The durable notes of a counter vat, in order.
    #[track_caller]
    pub fn notes(&self, kernel: KernelId, root: ObjectId) -> Vec<Arc<str>> {
        let vat = self.vat_of(kernel, root);
        let rows = self.db(kernel).range::<VatStore>((vat, "note.".into())..(vat, "note/".into()));
        rows.map(|(_, note)| note.clone()).collect()
    }

    /// Checks that on every living kernel nobody waits, nothing is under way, nothing was set aside, and the audit
    /// finds nothing.
    ///
    /// # Panics
    /// If that is not so.
    #[track_caller]
    pub fn assert_quiescent(&mut self) {
        self.run_until_quiet();
        for node in &self.nodes {
            let Some(process) = &node.process else { continue };
            let db = process.kernel.db();
            let waiting = db.iter::<Holds>().filter(|((_, kind), _)| *kind == HoldKind::Waiting).count();
            let left = [
                ("waiters", db.len::<Waiters>()),
                ("waiting holds", waiting),
                ("redemptions", db.len::<Redemptions>()),
                ("queue items", db.len::<RunQueue>()),
                ("service calls", db.len::<ServiceCalls>()),
                ("gc actions", db.len::<GcActions>()),
                ("outbox rows", db.len::<Outbox>()),
                ("dead letters", db.len::<DeadLetters>()),
            ];
            for (what, count) in left {
                assert_eq!(count, 0, "{what} at {}\n{}", node.name, self.trace(60));
            }
        }
        self.assert_audit();
    }

    /// Checks that whatever each of two kernels holds by a name of the other's, the other still knows by that name.
    /// The reverse need not be: exports outlive a restart of the peer (03 D.4).
    ///
    /// # Panics
    /// If that is not so.
    #[track_caller]
    pub fn assert_names_match(&self, a: KernelId, b: KernelId) {
        for (holder, giver) in [(a, b), (b, a)] {
            let held = self.names(holder, giver, Side::Export);
            let given = self.names(giver, holder, Side::Import);
            let lost: Vec<_> = held.difference(&given).collect();
            assert!(
                lost.is_empty(),
                "{} holds {lost:?} of {}, which has only {given:?}\n{}",
                self.node(holder).name,
                self.node(giver).name,
                self.trace(60)
            );
        }
    }

    /// Kind and number of the entries of that side in the c-list of `kernel` toward `other`.
    fn names(&self, kernel: KernelId, other: KernelId, side: Side) -> BTreeSet<(RefKind, u64)> {
        let Some(rid) = self.remote(kernel, &self.peer(other)) else { return BTreeSet::new() };
        let entries = self.db(kernel).iter::<Clist>();
        let own = entries.filter(|((endpoint, _), _)| *endpoint == EndpointId::Remote(rid));
        own.filter_map(|(_, row)| match row.eref {
            ERef::Remote(name) => (name.side == side).then_some((name.kind, name.index)),
            ERef::Vat(_) => None,
        })
        .collect()
    }

    /// Checks that the audit finds nothing on any living kernel.
    ///
    /// # Panics
    /// If it does.
    #[track_caller]
    pub fn assert_audit(&self) {
        for node in &self.nodes {
            let Some(process) = &node.process else { continue };
            let db = process.kernel.db();
            let found = capstan_kernel::audit::audit(db.tables());
            assert!(found.is_empty(), "audit of {}: {found:#?}\n{}", node.name, self.trace(60));
            let letters: Vec<_> = db.iter::<DeadLetters>().collect();
            assert!(letters.is_empty(), "dead letters of {}: {letters:?}\n{}", node.name, self.trace(60));
        }
    }
}
