//! What can happen in a storm: a list that a seed decides before anything runs, so that it can be cut down.

use super::errand::{Body, Deed, Pick, Reply, Settlement};
use crate::chance::Chance;
pub use crate::net::Spoil;
use serde::{Deserialize, Serialize};

mod handshakes;

/// Acts of one storm.
const ACTS: usize = 70;

/// In every such storm the links run in a process of their own, which fails by itself.
const SPLIT: u64 = 4;
/// How often it does.
const SPLIT_ACTS: usize = 4;
/// In every such storm few bytes fill an outbox.
const TIGHT: u64 = 8;

/// One storm, complete: the same plan gives the same run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Decides delays, batches and retries.
    pub seed: u64,
    /// The kernels: which of them speak the classic generation.
    pub classic: Vec<bool>,
    /// Frames on their way to one peer before the next waits.
    pub window: u64,
    /// Bytes on their way to one peer before the next frame waits, if there is such a limit.
    #[serde(default)]
    pub outbox_bytes: Option<u64>,
    /// Every input is a batch of its own.
    pub fine: bool,
    /// Nothing ends but processes, and what is durable stays: then nothing at all may be lost.
    pub calm: bool,
    /// What happens.
    pub acts: Vec<Act>,
}

/// A kernel, taken modulo their number.
pub type Who = u8;

/// One thing that happens. Acts for which there is nothing to choose from do nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// The host calls a vat.
    Call(Who, Pick, Vec<Pick>, Body),
    /// The host redeems a URL and passes what it gets to a vat.
    Redeem(Who, Pick, Pick),
    /// The host issues a URL for something it has.
    Issue(Who, Pick),
    /// The host collects garbage, and has the peers do so.
    Collect(Who),
    /// Time passes, milliseconds.
    Pass(u16),
    /// The process dies.
    Kill(Who),
    /// It starts again.
    Start(Who),
    /// Both at once.
    Restart(Who),
    /// The same, and the next process speaks the other generation.
    Turn(Who),
    /// It dies at one of the next batches: that many ahead, after it is durable or before.
    Strike(Who, u8, bool),
    /// No dial gets through, streams break.
    Cut(Who, Who),
    /// All dials get through.
    Heal,
    /// Streams break.
    Break(Who, Who),
    /// What travels from one to the other on present streams stays where it is.
    Freeze(Who, Who),
    /// It arrives.
    Thaw,
    /// Frames are spoilt.
    Spoil(Who, Who, Spoil),
    /// Batches take up to so long to become durable, milliseconds.
    Slow(Who, u8),
    /// The clock jumps, milliseconds; and the process is told, or not.
    Jump(Who, i16, bool),
    /// The process of the links dies alone, and starts again.
    Relink(Who),
    /// So many verdicts get lost on their way to the links.
    Deafen(Who, u8),
    /// The host restarts a vat.
    RestartVat(Who, Pick),
    /// The host ends a vat.
    Terminate(Who, Pick),
    /// Something is taken away for good.
    Lose(Loss),
}

/// What ends lives, sessions, peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Loss {
    /// The disk is emptied, the key stays.
    Wipe(Who),
    /// The kernel forgets everything while it runs.
    Reset(Who),
    /// A backup is made.
    Backup(Who),
    /// It is restored.
    Restore(Who, Pick),
    /// The newest is restored.
    Undo(Who),
    /// A second machine runs on a copy of the disk, for so many milliseconds.
    Copy(Who, u16),
    /// The user closes a peer.
    Close(Who, Who),
    /// The user undoes that.
    Reconnect(Who, Who),
    /// The user forgets a peer.
    Forget(Who, Who),
}

impl Plan {
    /// The plan of a seed for that many kernels; `None`: the seed decides.
    pub fn seeded(seed: u64, kernels: Option<usize>) -> Self {
        let mut chance = Chance::seeded(seed ^ 0x5707_0000);
        let kernels = kernels.unwrap_or_else(|| [2, 2, 2, 3, 3, 4][pick(&mut chance, 6)]);
        let classic_ones = chance.below(6) == 0;
        let classic: Vec<bool> = (0..kernels).map(|_| classic_ones && chance.below(2) == 0).collect();
        let window = [1, 2, 5, 4096, 4096, 4096][pick(&mut chance, 6)];
        let (fine, calm) = (chance.below(3) == 0, chance.below(5) < 2);
        let mut maker = Maker { calm, mixed: classic.contains(&true), chance };
        let mut acts: Vec<Act> = Vec::with_capacity(ACTS);
        for at in 0..kernels {
            #[expect(clippy::cast_possible_truncation, reason = "a handful of kernels")]
            let who = at as Who;
            acts.extend([Act::Redeem(who, maker.pick(), 0), Act::Redeem(who, maker.pick(), 1)]);
        }
        acts.push(Act::Pass(100));
        let begun = acts.len();
        acts.resize_with(ACTS, || maker.act());
        let mut chance = Chance::seeded(seed ^ 0x11e5_0000);
        if seed % SPLIT == SPLIT - 1 {
            for _ in 0..SPLIT_ACTS {
                let at = begun + pick(&mut chance, ACTS as u64 - begun as u64);
                let who = u8::try_from(chance.below(12)).unwrap_or(0);
                let lost = u8::try_from(1 + chance.below(3)).unwrap_or(1);
                acts.insert(at, if chance.below(3) > 0 { Act::Relink(who) } else { Act::Deafen(who, lost) });
            }
        }
        let outbox_bytes = (seed % TIGHT == 1).then(|| 200 + chance.below(2_000));
        Plan { seed, classic, window, outbox_bytes, fine, calm, acts }
    }

    /// Whether all kernels speak the session generation all the time.
    pub fn all_session(&self) -> bool {
        !self.classic.contains(&true) && !self.acts.iter().any(|act| matches!(act, Act::Turn(_)))
    }
}

fn pick(chance: &mut Chance, bound: u64) -> usize {
    usize::try_from(chance.below(bound)).unwrap_or(0)
}

struct Maker {
    chance: Chance,
    calm: bool,
    /// Classic peers take part: no state may be set back or forgotten (see the module's documentation).
    mixed: bool,
}

impl Maker {
    #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
    fn pick(&mut self) -> Pick {
        self.chance.next() as Pick
    }

    fn who(&mut self) -> Who {
        u8::try_from(self.chance.below(12)).unwrap_or(0)
    }

    #[expect(clippy::cast_possible_truncation, reason = "below a small number")]
    fn millis(&mut self, bound: u64) -> u16 {
        1 + self.chance.below(bound) as u16
    }

    #[expect(clippy::cast_possible_truncation, reason = "below a small number")]
    fn small(&mut self, bound: u64) -> u8 {
        self.chance.below(bound) as u8
    }

    fn picks(&mut self, bound: u64) -> Vec<Pick> {
        (0..self.chance.below(bound)).map(|_| self.pick()).collect()
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.chance.below(times) == 0
    }

    fn act(&mut self) -> Act {
        match self.chance.below(100) {
            0..=27 => Act::Call(self.who(), self.pick(), self.picks(3), self.body(0)),
            28..=31 => Act::Redeem(self.who(), self.pick(), self.pick()),
            32 => Act::Issue(self.who(), self.pick()),
            33..=36 => Act::Collect(self.who()),
            37..=52 => Act::Pass(self.millis(40)),
            53 if self.one_in(6) => Act::Pass(self.millis(15_000)),
            53 => Act::Pass(self.millis(1500)),
            54..=74 => self.process(),
            75..=89 => self.net(),
            _ => self.loss(),
        }
    }

    /// What happens to processes.
    fn process(&mut self) -> Act {
        match self.chance.below(10) {
            0 => Act::Kill(self.who()),
            1..=3 => Act::Start(self.who()),
            4..=5 => Act::Restart(self.who()),
            6..=8 => Act::Strike(self.who(), self.small(6), self.one_in(2)),
            _ if self.one_in(2) => Act::Slow(self.who(), [0, 3, 20, 80][usize::from(self.small(4))]),
            _ => {
                let ahead = i16::try_from(self.chance.below(4000)).unwrap_or(0) - 2000;
                Act::Jump(self.who(), ahead, self.one_in(2))
            }
        }
    }

    /// What happens between them.
    fn net(&mut self) -> Act {
        match self.chance.below(12) {
            0 => Act::Cut(self.who(), self.who()),
            1..=2 => Act::Heal,
            3..=5 => Act::Break(self.who(), self.who()),
            6..=7 => Act::Freeze(self.who(), self.who()),
            8..=9 => Act::Thaw,
            _ => Act::Spoil(self.who(), self.who(), self.spoil()),
        }
    }

    fn spoil(&mut self) -> Spoil {
        [Spoil::Double, Spoil::Truncate, Spoil::Lose, Spoil::Swap][usize::from(self.small(4))]
    }

    /// What takes something away for good.
    fn loss(&mut self) -> Act {
        if self.calm {
            return Act::Pass(self.millis(40));
        }
        match self.chance.below(16) {
            0..=1 => Act::RestartVat(self.who(), self.pick()),
            2 => Act::Terminate(self.who(), self.pick()),
            3..=5 if self.mixed => Act::Lose(Loss::Wipe(self.who())),
            _ if self.mixed => Act::Restart(self.who()),
            3..=5 => Act::Lose(Loss::Wipe(self.who())),
            6 => Act::Lose(Loss::Reset(self.who())),
            7..=8 => Act::Lose(Loss::Backup(self.who())),
            9..=10 => Act::Lose(Loss::Restore(self.who(), self.pick())),
            11 => Act::Lose(Loss::Copy(self.who(), self.millis(400))),
            12 => Act::Lose(Loss::Close(self.who(), self.who())),
            13..=14 => Act::Lose(Loss::Reconnect(self.who(), self.who())),
            _ => Act::Lose(Loss::Forget(self.who(), self.who())),
        }
    }

    fn body(&mut self, depth: u64) -> Body {
        let answer = match self.chance.below(10) {
            0..=1 => Reply::Later,
            _ => Reply::Now(self.settlement()),
        };
        Body { deeds: (0..self.chance.below(4)).map(|_| self.deed(depth)).collect(), answer }
    }

    fn settlement(&mut self) -> Settlement {
        Settlement { rejected: self.one_in(10), bare: self.one_in(3), slots: self.picks(3) }
    }

    fn deed(&mut self, depth: u64) -> Deed {
        match self.chance.below(20) {
            0..=10 if depth < 2 => {
                let (target, slots, wanted) = (self.pick(), self.picks(3), !self.one_in(3));
                Deed::Send { target, slots, wanted, body: self.body(depth + 1) }
            }
            0..=12 => Deed::Object,
            13..=14 => Deed::Promise,
            15..=16 => Deed::Settle(self.pick(), self.settlement()),
            _ => Deed::Drop(self.pick(), !self.one_in(3)),
        }
    }
}
