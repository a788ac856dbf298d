//! The store that keeps nothing: for tests and for the simulator, which crashes kernels and starts them again.

use crate::error::StoreError;
use crate::schema::{ChangeSet, Tables};
use crate::writer::Backend;

/// What would be on the disk, in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    disk: Tables,
}

impl MemoryStore {
    /// Writes a batch. Never fails; the result is that of every backend.
    pub fn apply(&mut self, changes: &ChangeSet) -> Result<(), StoreError> {
        self.disk.apply(changes);
        Ok(())
    }

    /// Reads everything back, as a process does that starts after a crash.
    pub fn reload(&self) -> Tables {
        let mut tables = Tables::default();
        tables.apply(&self.disk.snapshot());
        tables.rebuild_mirrors();
        tables
    }
}

impl Backend for MemoryStore {
    fn apply(&mut self, changes: &ChangeSet) -> Result<(), StoreError> {
        MemoryStore::apply(self, changes)
    }

    fn checkpoint(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}
