//! Random faults against two kernels: nothing twice, nobody left waiting, and they always find together again.

use super::world::{Disk, World};
use crate::host_op::{Answer, HostOp};
use crate::kernel::Generation;
use capstan_model::id::ObjectId;
use capstan_store::schema::{Clist, Grants, Objects, Outbox, Promises};

const ANN: usize = 0;
const BOB: usize = 1;

struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % n
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Faults {
    /// Cuts and crashes that keep the disk: invisible.
    Keeping,
    /// Wipes too. A classic pair cannot tell the other side of forgetting.
    Wiping,
    /// Wipes and forgetting too: sessions end.
    Ending,
    /// Disks that go back, too: what a restored kernel did since its backup may be done again.
    Restoring,
}

impl Faults {
    fn kinds(self) -> usize {
        match self {
            Faults::Keeping => 7,
            Faults::Wiping => 8,
            Faults::Ending => 9,
            Faults::Restoring => 10,
        }
    }
}

/// Finds an object at `to`, at the latest when the second question follows the restart that the first one found.
fn find(world: &mut World, from: usize, to: usize) -> ObjectId {
    let root = world.vat(to);
    let url = world.url(to, root);
    let mut refused = Vec::new();
    for _ in 0..4 {
        let asked = world.ask_redeem(from, &url);
        world.pass(50_000);
        match world.answer(from, asked) {
            Ok(Answer::Redeemed { object }) => return object,
            other => refused.push(other),
        }
    }
    panic!("{from} does not find {to}: {refused:?} {:#?}", world.sides[from].logs);
}

fn storm(seed: u64, generations: [Generation; 2], faults: Faults) {
    let mut chance = Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut world = World::new(&["ann", "bob"], generations[0]);
    let mut found = [find(&mut world, ANN, BOB), find(&mut world, BOB, ANN)];
    world.speak(BOB, generations[1]);
    let mut asked: Vec<(usize, u64, String)> = Vec::new();
    let mut lives = [0_u32; 2];
    for n in 0..40 {
        let at = chance.below(2);
        match chance.below(faults.kinds()) {
            0 => {
                // The answer is a promise that the asker decides, by way of the peer.
                let own = world.vat(at);
                let request = world.send(at, found[at], "relay", &[own.into()]);
                asked.push((at, request, "relay".into()));
            }
            1..=2 => {
                let method = format!("m{n}");
                let request = world.send(at, found[at], &method, &[]);
                asked.push((at, request, method));
            }
            3 => world.cut(),
            4 => {
                world.kill(at);
                asked.retain(|(who, ..)| *who != at);
                if chance.below(2) == 0 {
                    world.pass(100);
                }
                world.start(at, Disk::Keep, None);
            }
            5 => world.pass(chance.below(3_000) as u64),
            6 => (0..chance.below(30)).for_each(|_| {
                world.turn();
            }),
            7 => {
                world.kill(at);
                asked.retain(|(who, ..)| *who != at);
                lives[at] += 1;
                world.start(at, Disk::Wipe, None);
                found = [find(&mut world, ANN, BOB), find(&mut world, BOB, ANN)];
            }
            9 => {
                world.kill(at);
                asked.clear();
                let commits = world.commits(at);
                let back = commits - chance.below(commits.min(12));
                world.start(at, Disk::Keep, Some(back));
                found = [find(&mut world, ANN, BOB), find(&mut world, BOB, ANN)];
            }
            _ => {
                let peer = world.sides[1 - at].name.clone();
                let _unknown = world.request(at, HostOp::PeerForget(peer));
                found = [find(&mut world, ANN, BOB), find(&mut world, BOB, ANN)];
            }
        }
    }
    world.pass(60_000);
    // What a dead life's handshake can do to a classic pair cannot be told from a restart (no facts on the wire).
    let exempt = faults == Faults::Restoring || faults == Faults::Wiping;
    for (at, request, method) in asked {
        let (rejected, body) = world.settled(at, request);
        if method == "relay" {
            assert!(faults != Faults::Keeping || !rejected, "seed {seed}: relay of {at}: {body}");
            continue;
        }
        assert!(rejected || body == format!("#\"{method} done\""), "seed {seed}: {body}");
        assert!(faults != Faults::Keeping || !rejected, "seed {seed}: {method} of {at}: {body}");
        let calls = world.calls(1 - at, &method);
        let once = calls <= 1 || exempt;
        assert!(once && (rejected || calls > 0), "seed {seed}: {method} of {at} came {calls} times");
    }
    find(&mut world, ANN, BOB);
    find(&mut world, BOB, ANN);
    world.pass(60_000);
    for at in [ANN, BOB] {
        assert_eq!(world.db(at).len::<Outbox>(), 0, "seed {seed}");
    }
}

#[test]
fn faults_that_keep_the_disk_are_invisible() {
    for seed in 0..20 {
        storm(seed, [Generation::Session; 2], Faults::Keeping);
        storm(seed, [Generation::Classic; 2], Faults::Keeping);
        storm(seed, [Generation::Session, Generation::Classic], Faults::Keeping);
    }
}

#[test]
fn sessions_that_end_leave_nobody_waiting_and_nothing_twice() {
    for seed in 0..20 {
        storm(seed, [Generation::Session; 2], Faults::Ending);
    }
}

#[test]
fn restored_backups_find_their_peers_again() {
    for seed in 0..20 {
        storm(seed, [Generation::Session; 2], Faults::Restoring);
    }
}

#[test]
fn classic_pairs_find_together_after_wipes() {
    for seed in 0..20 {
        storm(seed, [Generation::Classic; 2], Faults::Wiping);
        storm(seed, [Generation::Session, Generation::Classic], Faults::Wiping);
    }
}

#[test]
fn i15_when_all_is_dropped_the_rows_of_the_pair_are_gone() {
    let mut world = World::new(&["ann", "bob"], Generation::Session);
    let root = world.vat(BOB);
    let rows = |world: &World, at| {
        (world.db(at).len::<Objects>(), world.db(at).len::<Promises>(), world.db(at).len::<Clist>())
    };
    let before = [rows(&world, ANN), rows(&world, BOB)];
    let url = world.url(BOB, root);
    let object = world.redeem(ANN, &url);
    let fresh = world.send(ANN, object, "fresh", &[]);
    world.pass(1_000);
    assert!(!world.settled(ANN, fresh).0);
    let grants: Vec<_> = world.db(BOB).iter::<Grants>().map(|(grant, _)| *grant).collect();
    for grant in grants {
        world.request(BOB, HostOp::RevokeUrl(grant)).unwrap();
    }
    for _ in 0..3 {
        for at in [ANN, BOB] {
            world.request(at, HostOp::Collect).unwrap();
            world.pass(2_000);
        }
    }
    assert_eq!(rows(&world, ANN), before[ANN]);
    let left = rows(&world, BOB);
    assert_eq!((left.0 - before[BOB].0, left.1, left.2 - before[BOB].2), (0, before[BOB].1, 0), "{left:?}");
    assert_eq!(world.db(ANN).len::<Outbox>(), 0);
}

#[test]
fn b33b_what_is_too_long_for_the_peer_is_refused_or_replaced() {
    let mut world = World::new(&["ann", "bob"], Generation::Session);
    world.sides[BOB].kernel.config.frame_bytes_max = 2_000;
    let root = world.vat(BOB);
    let url = world.url(BOB, root);
    let object = world.redeem(ANN, &url);
    world.cut();
    world.pass(5_000);
    let (rejected, body) = world.call(ANN, object, &"x".repeat(3_000));
    assert!(rejected && body.contains("[KERNEL:DELIVERY_FAILED]"), "{body}");
    assert_eq!(world.call(ANN, object, "greet"), (false, "#\"greet done\"".into()));
    world.sides[BOB].kernel.config.frame_bytes_max = 16 << 20;
    world.sides[ANN].kernel.config.frame_bytes_max = 1_000;
    world.cut();
    world.pass(5_000);
    let (rejected, body) = world.call(ANN, object, &"y".repeat(990));
    assert!(rejected && body.contains("[KERNEL:DELIVERY_FAILED]"), "{body}");
    assert_eq!(world.call(ANN, object, "greet"), (false, "#\"greet done\"".into()));
}
