//! System subclusters: kept by the host under a name, restored at every start (02 §10.4).
//!
//! The name is a field of the subcluster's own row, so it cannot point at one that is gone.

use crate::effect::{Effect, LogLevel, Step};
use crate::host_op::Refusal;
use crate::kernel::Kernel;
use capstan_model::id::{EndpointId, ObjectId, SubclusterId};
use capstan_model::peer::Millis;
use capstan_model::refs::VRef;
use capstan_store::overlay::Db;
use capstan_store::schema::{ClistByEref, SubclusterRow, Subclusters, VatPhase, Vats};
use std::sync::Arc;

/// A stored system subcluster lacks what it cannot have lost: nothing should be started on this store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("system subcluster {name:?} ({subcluster}) has no {lacks}; the database may be corrupted")]
pub struct SystemDamage {
    /// Its name.
    pub name: Arc<str>,
    /// Its id.
    pub subcluster: SubclusterId,
    /// What is missing.
    pub lacks: &'static str,
}

impl Kernel {
    /// Looks whether the stored system subclusters that are wanted can be restored; to be asked before the first input.
    /// Changes nothing.
    pub fn check_system(&self) -> Result<(), SystemDamage> {
        let wanted = system(&self.db).filter(|(_, name, _)| self.config.system.contains_key(*name));
        for (subcluster, name, row) in wanted.filter(|(_, _, row)| !row.launching) {
            if let Err(lacks) = root(&self.db, subcluster, row) {
                return Err(SystemDamage { name: name.clone(), subcluster, lacks });
            }
        }
        Ok(())
    }

    /// Before any vat starts: removes what the host does not want any more. What it wants is left as it is.
    pub(crate) fn restore_system(&mut self, now: Millis, step: &mut Step) {
        let mut orphans = Vec::new();
        for (subcluster, name, row) in system(&self.db) {
            let (level, text) = match self.config.system.get(name) {
                None => {
                    orphans.push(subcluster);
                    (LogLevel::Info, "is no longer configured and is removed")
                }
                Some(config) if *config != row.config => (
                    LogLevel::Warn,
                    "goes on with the configuration it was launched from; the changed one is ignored",
                ),
                Some(_) => continue,
            };
            let text = format!("system subcluster {name:?} ({subcluster}) {text}");
            step.effects.push(Effect::Log { level, text });
        }
        for subcluster in orphans {
            self.remove_subcluster(now, subcluster, "its system subcluster is no longer configured", step);
        }
    }
}

/// The root of the system subcluster called `name`, once its launch is complete.
pub(crate) fn system_root(db: &Db, name: &Arc<str>) -> Result<ObjectId, Refusal> {
    let mut named = system(db).filter(|(_, other, row)| *other == name && !row.launching);
    let found = named.next().and_then(|(subcluster, _, row)| root(db, subcluster, row).ok());
    found.ok_or_else(|| Refusal::SystemSubclusterNotFound(name.clone()))
}

fn system(db: &Db) -> impl Iterator<Item = (SubclusterId, &Arc<str>, &SubclusterRow)> {
    db.iter::<Subclusters>().filter_map(|(id, row)| Some((*id, row.system.as_ref()?, row)))
}

fn root(db: &Db, subcluster: SubclusterId, row: &SubclusterRow) -> Result<ObjectId, &'static str> {
    let mut vats = db.iter::<Vats>().filter(|(_, vat)| {
        vat.subcluster == subcluster && vat.name == row.bootstrap && vat.phase != VatPhase::Terminated
    });
    let (vat, _) = vats.next().ok_or("bootstrap vat")?;
    let root = db.get::<ClistByEref>(&(EndpointId::Vat(*vat), VRef::ROOT.into()));
    root.and_then(|kref| kref.object()).ok_or("root object")
}
