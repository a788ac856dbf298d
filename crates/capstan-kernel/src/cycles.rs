//! Settled promises that only their own values reach: counts alone never let go of them (02 §7.5).
//!
//! Trial deletion: what the values of settled promises contribute to each other is taken off their counts. What has a
//! count left is reached from elsewhere, and so is everything in its value. The rest is garbage.

use crate::counts;
use crate::fault::Corrupt;
use capstan_model::id::{KRef, PromiseId};
use capstan_store::overlay::Tx;
use capstan_store::schema::{PromiseState, Promises};
use std::collections::BTreeMap;

/// Deletes every settled promise that nothing but settled promises of this kind reaches; returns how many.
pub(crate) fn collect(tx: &mut Tx<'_>) -> Result<usize, Corrupt> {
    let garbage = unreached(tx)?;
    for &kp in garbage.keys() {
        tx.delete::<Promises>(&kp);
    }
    // What they held of each other is gone with them; the rest is released.
    for slot in garbage.values().flatten() {
        if slot.promise().is_none_or(|kp| !garbage.contains_key(&kp)) {
            counts::release(tx, *slot)?;
        }
    }
    Ok(garbage.len())
}

/// Returns the garbage with the slots of its values.
fn unreached(tx: &Tx<'_>) -> Result<BTreeMap<PromiseId, Vec<KRef>>, Corrupt> {
    let mut settled = BTreeMap::new();
    let mut outside = BTreeMap::new();
    for (&kp, row) in tx.iter::<Promises>() {
        match &row.state {
            PromiseState::Unresolved { .. } => {}
            PromiseState::Fulfilled(value) | PromiseState::Rejected(value) => {
                settled.insert(kp, value.slots.clone());
                outside.insert(kp, row.count);
            }
        }
    }
    for kp in settled.values().flatten().filter_map(|slot| slot.promise()) {
        if let Some(count) = outside.get_mut(&kp) {
            *count = count.checked_sub(1).ok_or(Corrupt::Count(KRef::Promise(kp)))?;
        }
    }
    let mut reached: Vec<PromiseId> =
        outside.into_iter().filter(|(_, count)| *count > 0).map(|(kp, _)| kp).collect();
    while let Some(kp) = reached.pop() {
        if let Some(slots) = settled.remove(&kp) {
            reached.extend(slots.iter().filter_map(|slot| slot.promise()));
        }
    }
    Ok(settled)
}
