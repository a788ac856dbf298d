//! Sessions between two kernels of the session generation.

use super::world::{Disk, World};
use crate::kernel::Generation;
use capstan_store::schema::{Clist, Outbox, Promises};

const ANN: usize = 0;
const BOB: usize = 1;

fn pair() -> (World, capstan_model::id::ObjectId) {
    let mut world = World::new(&["ann", "bob"], Generation::Session);
    let root = world.vat(BOB);
    let url = world.url(BOB, root);
    let object = world.redeem(ANN, &url);
    (world, object)
}

#[test]
fn two_kernels_meet_redeem_and_call() {
    let (mut world, object) = pair();
    assert_eq!(world.call(ANN, object, "greet"), (false, "#\"greet done\"".into()));
    assert_eq!(world.call(ANN, object, "greet"), (false, "#\"greet done\"".into()));
    assert_eq!(world.calls(BOB, "greet"), 2);
    assert_eq!(world.remote(ANN).state, "connected");
}

#[test]
fn acknowledged_frames_leave_and_settled_promises_are_retired_on_both_sides() {
    let (mut world, object) = pair();
    world.call(ANN, object, "greet");
    world.pass(1_000);
    let before: Vec<_> =
        (0..2).map(|at| (world.db(at).len::<Clist>(), world.db(at).len::<Promises>())).collect();
    for _ in 0..5 {
        assert!(!world.call(ANN, object, "greet").0);
    }
    world.pass(1_000);
    for at in [ANN, BOB] {
        assert_eq!(world.db(at).len::<Outbox>(), 0, "{at}");
        assert_eq!((world.db(at).len::<Clist>(), world.db(at).len::<Promises>()), before[at], "{at}");
    }
}

#[test]
fn a_crash_with_state_kept_is_invisible() {
    let (mut world, object) = pair();
    for (at, n) in [(ANN, 0), (BOB, 1), (ANN, 2)] {
        world.restart(at, Disk::Keep);
        assert_eq!(world.call(ANN, object, "greet"), (false, "#\"greet done\"".into()), "{n}");
    }
    assert_eq!(world.calls(BOB, "greet"), 3);
    assert_eq!((world.remote(ANN).restarts_seen, world.remote(BOB).restarts_seen), (0, 0));
}

#[test]
fn calls_made_while_cut_arrive_once_and_in_order() {
    let (mut world, object) = pair();
    world.severed = true;
    world.cut();
    world.run();
    let asked: Vec<u64> = (0..100).map(|n| world.send(ANN, object, &format!("m{n}"), &[])).collect();
    world.pass(3_000);
    world.severed = false;
    world.pass(20_000);
    for (n, request) in asked.iter().enumerate() {
        assert_eq!(world.settled(ANN, *request), (false, format!("#\"m{n} done\"")));
        assert_eq!(world.calls(BOB, &format!("m{n}")), 1);
    }
}
