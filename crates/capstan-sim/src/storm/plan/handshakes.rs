//! Storms about handshakes alone: few and short messages between two kernels that have not met, and everything that can
//! befall a channel, a process and a disk in the few milliseconds that a handshake takes.

use super::{Act, Loss, Maker, Plan, Who, pick};
use crate::chance::Chance;
use crate::storm::errand::{Body, Deed, Reply, Settlement};

/// Acts of one storm, at least.
const ACTS: usize = 60;

/// What such a storm is about, besides lost channels and processes that die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Theme {
    /// Nothing more.
    Deaths,
    /// Kernels that start again in the other generation.
    Generations,
    /// Frames spoilt on streams that go on, most of them to classic kernels.
    Frames,
    /// Older backups restored.
    Backups,
    /// Peers forgotten.
    Forgetting,
    /// Both.
    BackupsAndForgetting,
    /// Everything that takes something away.
    Losses,
}

impl Plan {
    /// The plan of a seed for a storm about handshakes.
    pub fn of_handshakes(seed: u64) -> Self {
        let mut chance = Chance::seeded(seed ^ 0x4A5D_0000);
        let themes = [
            Theme::Deaths,
            Theme::Generations,
            Theme::Frames,
            Theme::Backups,
            Theme::Forgetting,
            Theme::BackupsAndForgetting,
            Theme::Losses,
        ];
        let theme = themes[pick(&mut chance, 7)];
        let mixed = matches!(theme, Theme::Generations | Theme::Frames);
        let classic = (0..2).map(|_| mixed && chance.below(2) == 0).collect();
        let fine = chance.below(2) == 0;
        let calm = theme == Theme::Deaths || (mixed && chance.below(2) == 0);
        let mut words = Words { theme, acts: Vec::new(), maker: Maker { chance, calm, mixed } };
        while words.acts.len() < ACTS {
            words.scene();
        }
        Plan { seed, classic, window: 4096, outbox_bytes: None, fine, calm, acts: words.acts }
    }
}

struct Words {
    theme: Theme,
    acts: Vec<Act>,
    maker: Maker,
}

impl Words {
    /// What may follow from one thing to the next: mostly anything, sometimes a story that needs its order.
    fn scene(&mut self) {
        let story = self.maker.one_in(if self.acts.is_empty() { 2 } else { 8 });
        let stories: &[fn(&mut Self)] = match self.theme {
            Theme::Backups => &[Self::relapse],
            Theme::Forgetting => &[Self::new_leaf],
            Theme::BackupsAndForgetting => &[Self::relapse, Self::new_leaf, Self::reunion],
            Theme::Generations if !self.maker.calm && !self.acts.is_empty() => &[Self::successor],
            Theme::Deaths | Theme::Generations | Theme::Frames | Theme::Losses => &[],
        };
        let which = if story && stories.len() > 1 { self.maker.small(3) } else { 0 };
        match stories.get(usize::from(which)) {
            Some(tell) if story => tell(self),
            Some(_) | None => {
                let act = self.act();
                self.acts.push(act);
            }
        }
    }

    fn add(&mut self, acts: impl IntoIterator<Item = Act>) {
        for act in acts {
            self.acts.push(act);
            if self.maker.one_in(12) {
                let more = self.act();
                self.acts.push(more);
            }
        }
    }

    fn wait(&mut self, least: u16, most: u16) {
        let wait = Act::Pass(least + self.maker.millis(u64::from(most - least)));
        self.add([wait]);
    }

    /// A kernel says something, is set back to before, and says something else; the first may still be under way, and
    /// the peer slow to say what it makes of the second.
    fn relapse(&mut self) {
        let who = self.maker.small(2);
        let strangers = self.acts.is_empty();
        let late = strangers || self.maker.one_in(2);
        let hold = Act::Freeze(who, 0);
        self.add([Act::Lose(Loss::Backup(who))]);
        self.add((late && !strangers).then_some(hold.clone()));
        self.say(who, late);
        self.wait(if strangers { 12 } else { 0 }, 40);
        self.add(strangers.then_some(hold));
        let meanwhile = if late { Act::Slow(1 - who, 40) } else { Act::Cut(who, 0) };
        self.add([meanwhile, Act::Lose(Loss::Undo(who))]);
        for _ in 0..=self.maker.small(2) {
            self.say(who, late);
        }
        self.wait(8, 40);
        self.add([Act::Heal, Act::Thaw]);
    }

    /// A kernel says something, forgets the peer, and begins anew while the first may still be under way.
    fn new_leaf(&mut self) {
        let who = self.maker.small(2);
        self.say(who, true);
        self.wait(12, 40);
        self.add([Act::Freeze(who, 0), Act::Lose(Loss::Forget(who, 0))]);
        self.say(who, true);
        self.wait(8, 50);
        self.add([Act::Thaw]);
    }

    /// A kernel forgets its peer and is found by it again, says something in the new session, and is set back to before it.
    fn reunion(&mut self) {
        let who = self.maker.small(2);
        self.say(who, true);
        self.wait(40, 100);
        self.add([Act::Lose(Loss::Forget(who, 0)), Act::Pass(4), Act::Lose(Loss::Backup(who))]);
        self.add([Act::Lose(Loss::Reconnect(1 - who, 0))]);
        self.wait(40, 80);
        self.add([Act::Freeze(who, 0)]);
        self.say(who, true);
        self.wait(4, 20);
        self.add([Act::Slow(1 - who, 40), Act::Lose(Loss::Undo(who))]);
        for _ in 0..=self.maker.small(2) {
            self.say(who, true);
        }
        self.wait(8, 40);
        self.add([Act::Thaw]);
    }

    /// A kernel loses everything and meets its peer again; then one of them speaks the other generation.
    fn successor(&mut self) {
        let who = self.maker.small(2);
        self.add([Act::Heal, Act::Lose(Loss::Wipe(who))]);
        for _ in 0..2 {
            self.say(who, true);
        }
        self.wait(20, 120);
        let other = self.maker.small(2);
        self.add([Act::Turn(other)]);
        self.say(who, true);
        self.wait(20, 120);
    }

    /// `asks`: something that the peer answers, and that needs no acquaintance.
    fn say(&mut self, who: Who, asks: bool) {
        let maker = &mut self.maker;
        let said = if asks {
            Act::Redeem(who, maker.pick(), maker.pick())
        } else {
            Act::Call(who, maker.pick(), Vec::new(), maker.word())
        };
        self.add([said]);
    }

    fn act(&mut self) -> Act {
        let maker = &mut self.maker;
        if self.acts.len() < 12 && maker.one_in(3) {
            return Act::Redeem(maker.who(), maker.pick(), maker.pick());
        }
        match maker.chance.below(100) {
            0..=17 => Act::Call(maker.who(), maker.pick(), Vec::new(), maker.word()),
            18..=20 => Act::Redeem(maker.who(), maker.pick(), maker.pick()),
            21..=46 => Act::Pass(maker.millis(12)),
            47..=49 => Act::Pass(maker.millis(80)),
            50..=51 => Act::Pass(maker.millis(1500)),
            52..=86 if self.theme == Theme::Frames => self.frames(),
            52..=58 => Act::Freeze(maker.who(), maker.who()),
            59..=64 => Act::Thaw,
            65..=70 => Act::Break(maker.who(), maker.who()),
            71..=73 => Act::Cut(maker.who(), maker.who()),
            74..=77 => Act::Heal,
            78..=79 => Act::Slow(maker.who(), [0, 3, 20][usize::from(maker.small(3))]),
            80..=82 => Act::Strike(maker.who(), maker.small(4), maker.one_in(2)),
            83..=84 => Act::Kill(maker.who()),
            85..=86 => Act::Start(maker.who()),
            _ => self.death(),
        }
    }

    /// What befalls frames on a stream that goes on.
    fn frames(&mut self) -> Act {
        let maker = &mut self.maker;
        match maker.chance.below(4) {
            0 => Act::Call(maker.who(), maker.pick(), Vec::new(), maker.word()),
            1 => Act::Pass(maker.millis(12)),
            _ => Act::Spoil(maker.who(), maker.who(), maker.spoil()),
        }
    }

    /// What the storm is about.
    fn death(&mut self) -> Act {
        let theme = self.theme;
        let maker = &mut self.maker;
        let who = maker.who();
        match (theme, maker.chance.below(8)) {
            (Theme::Frames, 0..=6) => self.frames(),
            (Theme::Generations, 0..=3) => Act::Turn(who),
            (Theme::Generations, 4) if !maker.calm => Act::Lose(Loss::Wipe(who)),
            (Theme::Backups, 0..=3) | (Theme::BackupsAndForgetting, 0..=2) => Act::Lose(Loss::Backup(who)),
            (Theme::Backups, 4..=6) | (Theme::BackupsAndForgetting, 3..=5) => {
                Act::Lose(Loss::Restore(who, maker.pick()))
            }
            (Theme::Forgetting, 0..=4) | (Theme::BackupsAndForgetting, 6) => {
                Act::Lose(Loss::Forget(who, maker.who()))
            }
            (Theme::Losses, 0..=6) => match maker.chance.below(7) {
                0..=1 => Act::Lose(Loss::Wipe(who)),
                2 => Act::Lose(Loss::Reset(who)),
                3 => Act::Lose(Loss::Backup(who)),
                4 => Act::Lose(Loss::Restore(who, maker.pick())),
                5 => Act::Lose(Loss::Close(who, maker.who())),
                _ => Act::Lose(Loss::Reconnect(who, maker.who())),
            },
            _ => Act::Restart(who),
        }
    }
}

impl Maker {
    /// A vat is to send one or two messages, most of them without an answer.
    fn word(&mut self) -> Body {
        let deeds = (0..=self.chance.below(2)).map(|_| Deed::Send {
            target: self.pick(),
            slots: Vec::new(),
            wanted: self.one_in(4),
            body: Body { deeds: Vec::new(), answer: Reply::Now(Settlement::default()) },
        });
        Body { deeds: deeds.collect(), answer: Reply::Now(Settlement::default()) }
    }
}
