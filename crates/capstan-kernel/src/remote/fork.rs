//! Another life of ours that begins with the state of an older one: a restored backup (03 G.4).
//!
//! What was agreed with peers was agreed by the life that ended, and each peer will see a new incarnation. Every session
//! therefore ends on this side too, in the same transaction; a classic peer cannot say that it no longer knows us.

use super::handshake::reset_toward;
use super::{facts, restart};
use crate::effect::{Effect, LogLevel};
use crate::fault::Corrupt;
use crate::turn::Turn;
use capstan_model::peer::PeerId;
use capstan_store::schema::{Meta, PeerIncarnations, Sessions};
use std::collections::BTreeSet;

/// Present in a store that was put under another incarnation from outside.
const RESTORED: &str = "restored";

/// Ends every session and believes nothing of any peer.
pub(super) fn leave_everyone(turn: &mut Turn<'_>) -> Result<Vec<restart::RestartOutcome>, Corrupt> {
    let spoken = turn.tx.iter::<Sessions>().map(|(peer, _)| peer.clone());
    let met = turn.tx.iter::<PeerIncarnations>().map(|(peer, _)| peer.clone());
    let peers: BTreeSet<PeerId> = spoken.chain(met).collect();
    let mut outcomes = Vec::new();
    for peer in peers {
        let rid = facts::remote_of(&turn.tx, &peer);
        outcomes.extend(reset_toward(turn, &peer, rid, false)?);
        facts::record_life(turn, &peer, None);
    }
    Ok(outcomes)
}

/// At a start: completes what a restore began.
pub(super) fn at_boot(turn: &mut Turn<'_>) -> Result<(), Corrupt> {
    if turn.tx.delete::<Meta>(&RESTORED.into()).is_none() {
        return Ok(());
    }
    let outcomes = leave_everyone(turn)?;
    let text = format!("restored from a backup: what was shared with {} peers has ended", outcomes.len());
    turn.log(LogLevel::Warn, text);
    let effects: Vec<Effect> = outcomes.into_iter().flat_map(restart::finalize_peer_restart).collect();
    turn.effects.extend(effects);
    Ok(())
}
