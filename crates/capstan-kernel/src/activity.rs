//! When this kernel was last at work, so that it notices having been away (02 §14, 03 B-45).

use crate::effect::{Effect, LogLevel, Step};
use crate::kernel::Kernel;
use crate::turn::transact;
use capstan_model::peer::Millis;
use capstan_store::overlay::{Db, Tx};
use capstan_store::schema::Meta;
use capstan_wire::seam::LinkOrder;

/// The key under which the time is kept, as a decimal number of milliseconds.
const LAST_ACTIVE: &str = "lastActiveTime";
/// A longer absence is a wake.
const ABSENCE_MAX: Millis = Millis(3_600_000);
/// An older record is written anew. Often enough for [`ABSENCE_MAX`], seldom enough to leave the disk alone.
const RECORD_EVERY: Millis = Millis(300_000);

impl Kernel {
    /// At the start of a life: says whether the kernel was away for long, once, and records the time.
    pub(crate) fn note_start(&mut self, now: Millis, step: &mut Step) {
        let away = last_active(&self.db).map(|last| now.0.saturating_sub(last.0));
        if let Some(away) = away.filter(|away| *away > ABSENCE_MAX.0) {
            self.woke(&format!("this kernel was last active {} minutes ago", away / 60_000), step);
        }
        self.record_activity(now, step);
    }

    /// Failed dials of before say nothing of now: every link is tried again at once.
    pub(crate) fn woke(&mut self, why: &str, step: &mut Step) {
        let text = format!("{why}; links are tried again at once");
        step.effects.push(Effect::Log { level: LogLevel::Info, text });
        step.effects.push(Effect::Link(LinkOrder::Woke));
    }

    /// Records the time if the record is old, or the clock was set back.
    pub(crate) fn refresh_activity(&mut self, now: Millis, step: &mut Step) {
        let fresh = |last: Millis| last <= now && now.0.saturating_sub(last.0) < RECORD_EVERY.0;
        if !last_active(&self.db).is_some_and(fresh) {
            self.record_activity(now, step);
        }
    }

    fn record_activity(&mut self, now: Millis, step: &mut Step) {
        let item = || "the time of last activity".to_owned();
        let _set_aside = transact(&mut self.db, &self.config, now, step, item, |turn| {
            note_activity(&mut turn.tx, now);
            Ok(())
        });
    }
}

/// Records the present time.
pub(crate) fn note_activity(tx: &mut Tx<'_>, now: Millis) {
    tx.put::<Meta>(LAST_ACTIVE.into(), now.0.to_string().into());
}

/// Absent or unreadable: nothing is known.
fn last_active(db: &Db) -> Option<Millis> {
    db.get::<Meta>(&LAST_ACTIVE.into()).and_then(|text| text.parse().ok()).map(Millis)
}
