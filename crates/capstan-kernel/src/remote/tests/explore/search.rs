//! Breadth first over all states within bounds, each visited once; and random walks, where bounds are too wide for that.

use super::pair::{Broken, Move, Pair, State};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Steps that a continuation without faults may take until both are at rest.
const PATIENCE: usize = 600;
/// Moves of a random walk, at most.
const WALK: usize = 120;

/// Fingerprints of the states seen: a table with open addressing; 0 is a free place.
struct Seen {
    places: Vec<u64>,
    taken: usize,
}

impl Seen {
    fn new() -> Self {
        Seen { places: vec![0; 1 << 16], taken: 0 }
    }

    /// Whether it is new.
    fn insert(&mut self, fingerprint: u64) -> bool {
        let fingerprint = fingerprint | 1;
        let mask = self.places.len() - 1;
        let mut at = (fingerprint >> 8) as usize & mask;
        while self.places[at] != 0 {
            if self.places[at] == fingerprint {
                return false;
            }
            at = (at + 1) & mask;
        }
        self.places[at] = fingerprint;
        self.taken += 1;
        if self.taken * 4 > self.places.len() * 3 {
            let old = std::mem::take(&mut self.places);
            self.places = vec![0; old.len() * 2];
            self.taken = 0;
            old.into_iter().filter(|fingerprint| *fingerprint != 0).for_each(|fingerprint| {
                self.insert(fingerprint);
            });
        }
        true
    }
}

fn fingerprint(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// What a search found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) states: usize,
    pub(super) moves: usize,
    pub(super) continuations: usize,
    /// Nothing within the bounds was left out.
    pub(super) complete: bool,
    /// The first violation, with the shortest way to it.
    pub(super) broken: Option<String>,
}

/// Visits every state, up to `limit`; one state in `sample` is continued twice without faults until both are at rest.
pub(super) fn search(pair: &mut Pair, start: State, limit: usize, sample: u64) -> Found {
    let mut seen = Seen::new();
    let mut ways: Vec<(u32, Move)> = vec![(0, Move::Say(0))];
    let mut waiting = VecDeque::from([(0_u32, start)]);
    seen.insert(fingerprint(&start));
    let mut found = Found { states: 1, moves: 0, continuations: 0, complete: true, broken: None };
    while let Some((number, state)) = waiting.pop_front() {
        if found.states > limit {
            found.complete = false;
            break;
        }
        for next in pair.moves(&state, true) {
            found.moves += 1;
            match pair.take(&state, next) {
                Err(broken) => {
                    found.broken = Some(tell(&ways, number, Some(next), &broken));
                    return found;
                }
                Ok(after) => {
                    if seen.insert(fingerprint(&after)) {
                        found.states += 1;
                        ways.push((number, next));
                        waiting.push_back((u32::try_from(ways.len() - 1).unwrap(), after));
                    }
                }
            }
        }
        let chance = fingerprint(&state);
        if chance.is_multiple_of(sample) {
            for turn in 0..2 {
                found.continuations += 1;
                if let Err(broken) = come_to_rest(pair, &state, chance ^ (turn * 7919 + 13)) {
                    found.broken = Some(tell(&ways, number, None, &broken));
                    return found;
                }
            }
        }
    }
    found
}

/// Wanders through states at random and then to rest.
pub(super) fn walk(pair: &mut Pair, start: State, walks: u64, seed: u64) -> Found {
    let mut found = Found { states: 0, moves: 0, continuations: 0, complete: false, broken: None };
    for number in 0..walks {
        let mut chance = Chance::new((number + seed * 1_000_003).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let (mut state, mut path) = (start, Vec::new());
        for _ in 0..chance.below(WALK) {
            let moves = pair.moves(&state, true);
            let Some(next) = moves.get(chance.below(moves.len().max(1))) else { break };
            path.push(*next);
            found.moves += 1;
            match pair.take(&state, *next) {
                Ok(after) => state = after,
                Err(broken) => {
                    found.broken = Some(format!("{path:?}\n{broken}"));
                    return found;
                }
            }
        }
        found.continuations += 1;
        if let Err(broken) = come_to_rest(pair, &state, chance.0) {
            found.broken = Some(format!("{path:?}\n{broken}"));
            return found;
        }
    }
    found
}

struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        Chance(seed | 1)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }
}

/// Without further faults, in a random order, both come to rest on one channel.
fn come_to_rest(pair: &mut Pair, state: &State, seed: u64) -> Result<(), Broken> {
    let (mut state, mut chance) = (*state, Chance::new(seed));
    let mut last = Vec::new();
    for _ in 0..PATIENCE {
        if pair.is_settled(&state) {
            return Ok(());
        }
        let moves = pair.moves(&state, false);
        let Some(next) = moves.get(chance.below(moves.len().max(1))) else {
            return Err(format!("stuck after {last:?}"));
        };
        last.push(*next);
        state = pair.take(&state, *next).map_err(|broken| format!("{broken}, after {last:?}"))?;
    }
    Err(format!("not at rest after {PATIENCE} steps: {:?}", &last[PATIENCE - 40..]))
}

fn tell(ways: &[(u32, Move)], mut number: u32, last: Option<Move>, broken: &str) -> String {
    let mut path: Vec<Move> = last.into_iter().collect();
    while number != 0 {
        let (before, by) = ways[number as usize];
        path.push(by);
        number = before;
    }
    let mut text = String::new();
    for (at, next) in path.iter().rev().enumerate() {
        writeln!(text, "{:3}. {next:?}", at + 1).unwrap();
    }
    text + broken
}
