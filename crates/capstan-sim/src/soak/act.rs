//! What can happen in a workload: a list that a seed decides before anything runs, so that it can be cut down.

use crate::chance::Chance;
use serde::{Deserialize, Serialize};

/// A choice among whatever there is to choose from when the act is performed: taken modulo its number.
pub type Pick = u32;

/// One thing that happens to the kernel. Acts for which there is nothing to choose from do nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// A subcluster is launched; its configuration may be unsound.
    Launch {
        /// How many vats.
        vats: u8,
        /// Names a bootstrap vat that it lacks.
        unsound: bool,
        /// What `bootstrap` does.
        bootstrap: Body,
    },
    /// The host calls something that it was ever given.
    Call {
        /// Whom.
        target: Pick,
        /// With what.
        slots: Vec<Pick>,
        /// What the receiver does.
        body: Body,
    },
    /// A vat answers some of what it was handed.
    Answer {
        /// Which, of those that have something to answer.
        vat: Pick,
        /// How many deliveries.
        count: u8,
        /// How the last of them goes wrong.
        fault: Option<Fault>,
    },
    /// A vat that is being started reports.
    Start(Pick, Beginning),
    /// What a run of a vat that was replaced meanwhile still says.
    Late(Pick),
    /// A vat's worker dies without an answer.
    Die(Pick),
    /// The host restarts a vat.
    Restart(Pick),
    /// The host ends a vat.
    Terminate(Pick),
    /// The host ends a subcluster.
    TerminateSubcluster(Pick),
    /// The host revokes something.
    Revoke(Pick),
    /// The host collects garbage.
    Collect,
    /// The host waits no longer for one of its requests.
    Abandon(Pick),
    /// The host issues a URL.
    Issue(Pick),
    /// The host ends a URL.
    Withdraw(Pick),
    /// Time passes.
    Time,
    /// This many batches become durable, and what waited for them is released.
    Sync(u8),
    /// The process dies with everything that is not durable, and starts again.
    Crash,
}

/// How a delivery fails as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// The runtime refuses.
    Runtime,
    /// A limit is exceeded.
    Limit,
    /// The worker dies over it.
    Death,
}

/// How a start goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Beginning {
    /// It does this.
    Does(Vec<Deed>),
    /// It fails.
    Fails,
}

/// What the receiver of a message does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// In order.
    pub deeds: Vec<Deed>,
    /// With the result, at the end.
    pub answer: Reply,
}

/// What becomes of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is settled at once.
    Now {
        /// Rejected rather than fulfilled.
        rejected: bool,
        /// With this.
        value: Content,
    },
    /// It stays open.
    #[default]
    Later,
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// Nothing in particular.
    Plain,
    /// One reference.
    Reference(Pick),
    /// A list of references.
    List(Vec<Pick>),
}

/// Where the answer of a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wanted {
    /// Nowhere.
    No,
    /// To a new promise.
    New,
    /// To a promise that the sender decides.
    Forwarded(Pick),
}

/// One thing that a vat does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deed {
    /// It sends.
    Send {
        /// To whom.
        target: Pick,
        /// With what.
        slots: Vec<Pick>,
        /// Where the answer goes.
        wanted: Wanted,
        /// What the receiver does.
        body: Body,
    },
    /// It makes a promise.
    Promise,
    /// It makes an object: ephemeral, virtual or durable.
    Object(u8),
    /// It settles a promise that it decides.
    Settle {
        /// Which.
        promise: Pick,
        /// Rejected rather than fulfilled.
        rejected: bool,
        /// With this.
        value: Content,
    },
    /// It settles promises that it decides, each with a reference to the next, the last with one to the first.
    Ring(Vec<Pick>),
    /// It drops an import.
    Drop(Pick),
    /// It retires an import that it has dropped.
    RetireImport(Pick),
    /// It retires an export that nobody reaches.
    RetireExport(Pick),
    /// It abandons an export.
    Abandon(Pick),
    /// It writes to its store, or removes.
    Store(u8, bool),
    /// It ends; as a failure or not.
    Exit(bool),
    /// It breaks a rule.
    Illegal(u8),
    /// It settles all that it decides.
    SettleAll,
    /// It lets go of all that it imports.
    ForgetAll,
}

/// How rough a workload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nothing ends, nothing is taken back: every message to an object must be executed.
    Calm,
    /// Anything.
    Rough,
}

/// Decides the acts of one workload.
pub fn acts(seed: u64, number: usize) -> (Weather, Vec<Act>) {
    let mut chance = Chance::seeded(seed);
    let weather = if chance.below(5) == 0 { Weather::Calm } else { Weather::Rough };
    let mut maker = Maker { chance, weather };
    let mut acts = vec![maker.launch(), maker.launch()];
    acts.resize_with(number.max(2), || maker.act());
    (weather, acts)
}

struct Maker {
    chance: Chance,
    weather: Weather,
}

impl Maker {
    fn one_in(&mut self, times: u64) -> bool {
        self.chance.below(times) == 0
    }

    fn rough(&mut self, times: u64) -> bool {
        self.weather == Weather::Rough && self.one_in(times)
    }

    #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
    fn pick(&mut self) -> Pick {
        self.chance.next() as Pick
    }

    #[expect(clippy::cast_possible_truncation, reason = "below a small number")]
    fn small(&mut self, bound: u64) -> u8 {
        self.chance.below(bound) as u8
    }

    fn picks(&mut self, bound: u64) -> Vec<Pick> {
        (0..self.chance.below(bound)).map(|_| self.pick()).collect()
    }

    fn launch(&mut self) -> Act {
        let mut bootstrap = self.body(1);
        if !self.rough(8) {
            bootstrap.answer = Reply::Now { rejected: self.rough(8), value: Content::Reference(self.pick()) };
        }
        Act::Launch { vats: 1 + self.small(3), unsound: self.rough(30), bootstrap }
    }

    fn act(&mut self) -> Act {
        match self.chance.below(100) {
            0..=23 => Act::Call { target: self.pick(), slots: self.picks(3), body: self.body(0) },
            24..=64 => {
                let faults = [Fault::Runtime, Fault::Limit, Fault::Death, Fault::Death];
                let fault = self.rough(25).then(|| faults[usize::from(self.small(4))]);
                Act::Answer { vat: self.pick(), count: 1 + self.small(4), fault }
            }
            65..=71 => {
                let fails = self.rough(8);
                let deeds = if self.one_in(4) { self.deeds(1) } else { Vec::new() };
                Act::Start(self.pick(), if fails { Beginning::Fails } else { Beginning::Does(deeds) })
            }
            72..=83 => Act::Sync(1 + self.small(6)),
            84..=86 => Act::Collect,
            87 => Act::Time,
            88 => Act::Issue(self.pick()),
            89 => Act::Withdraw(self.pick()),
            90 => self.launch(),
            91..=92 => Act::Abandon(self.pick()),
            other if self.weather == Weather::Rough => match other {
                93 => Act::Restart(self.pick()),
                94 => Act::Terminate(self.pick()),
                95 => Act::Crash,
                96 => Act::Die(self.pick()),
                97 => Act::Late(self.pick()),
                98 if self.one_in(2) => Act::TerminateSubcluster(self.pick()),
                98 => Act::Restart(self.pick()),
                _ => Act::Revoke(self.pick()),
            },
            _ => Act::Answer { vat: self.pick(), count: 1 + self.small(4), fault: None },
        }
    }

    fn body(&mut self, depth: u8) -> Body {
        let rejected = self.one_in(8);
        let answer = match self.chance.below(10) {
            0..=6 => Reply::Now { rejected, value: self.content() },
            _ => Reply::Later,
        };
        Body { deeds: self.deeds(depth), answer }
    }

    fn content(&mut self) -> Content {
        match self.chance.below(6) {
            0 => Content::Plain,
            1..=3 => Content::Reference(self.pick()),
            _ => Content::List(self.picks(4)),
        }
    }

    fn deeds(&mut self, depth: u8) -> Vec<Deed> {
        let most = if depth == 0 { 5 } else { 3 };
        (0..self.chance.below(most)).map(|_| self.deed(depth)).collect()
    }

    fn deed(&mut self, depth: u8) -> Deed {
        match self.chance.below(if self.weather == Weather::Rough { 56 } else { 46 }) {
            0..=17 => {
                let wanted = match self.chance.below(10) {
                    0..=1 => Wanted::No,
                    2..=8 => Wanted::New,
                    _ => Wanted::Forwarded(self.pick()),
                };
                let body = if depth < 3 { self.body(depth + 1) } else { Body::default() };
                Deed::Send { target: self.pick(), slots: self.picks(4), wanted, body }
            }
            18..=21 => Deed::Promise,
            22..=25 => Deed::Object(self.small(3)),
            26..=33 => {
                let rejected = self.one_in(6);
                Deed::Settle { promise: self.pick(), rejected, value: self.content() }
            }
            34..=35 => Deed::Ring(self.picks(4)),
            36..=40 => Deed::Drop(self.pick()),
            41..=42 => Deed::RetireImport(self.pick()),
            43..=45 => Deed::Store(self.small(8), self.one_in(3)),
            46..=47 => Deed::RetireExport(self.pick()),
            48..=50 => Deed::Abandon(self.pick()),
            51 => Deed::Exit(self.one_in(2)),
            52 => Deed::Illegal(self.small(14)),
            _ => Deed::Promise,
        }
    }
}
