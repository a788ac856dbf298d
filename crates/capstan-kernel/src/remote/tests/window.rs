//! As much is on its way to a peer as it takes; the rest waits in the run queue, in order (03 C-10).

use super::world::{Disk, World};
use crate::host_op::HostOp;
use crate::kernel::Generation;
use capstan_model::id::ObjectId;
use capstan_model::vat::VatDelivery;
use capstan_store::schema::{Outbox, RunQueue};

const ANN: usize = 0;
const BOB: usize = 1;
const WINDOW: u64 = 5;

fn pair(generation: Generation) -> (World, ObjectId) {
    let mut world = World::new(&["ann", "bob"], generation);
    let root = world.vat(BOB);
    let url = world.url(BOB, root);
    let object = world.redeem(ANN, &url);
    world.pass(5_000);
    world.sides[ANN].kernel.config.window_frames = WINDOW;
    (world, object)
}

/// The methods called at `at`, in order.
fn methods(world: &World, at: usize) -> Vec<String> {
    let name = |delivery: &VatDelivery| match delivery {
        VatDelivery::Message { message, .. } => message.methargs.body.split('"').nth(1).map(str::to_owned),
        _ => None,
    };
    world.sides[at].delivered.iter().filter_map(name).collect()
}

#[test]
fn r90_a_full_window_delays_and_refuses_nothing() {
    for generation in [Generation::Session, Generation::Classic] {
        let (mut world, object) = pair(generation);
        world.severed = true;
        world.cut();
        let names: Vec<String> = (0..20).map(|n| format!("m{n}")).collect();
        let asked: Vec<u64> = names.iter().map(|name| world.send(ANN, object, name, &[])).collect();
        world.run();
        assert_eq!(world.db(ANN).len::<Outbox>() as u64, WINDOW, "{generation:?}");
        assert_eq!(world.db(ANN).len::<RunQueue>() as u64, 20 - WINDOW);
        world.restart(ANN, Disk::Keep);
        world.sides[ANN].kernel.config.window_frames = WINDOW;
        world.severed = false;
        world.pass(60_000);
        assert_eq!(methods(&world, BOB), names, "{generation:?}");
        assert_eq!(world.db(ANN).len::<RunQueue>(), 0);
        assert_eq!(asked.len(), 20); // Their askers died with the process; what they asked was done, once.
    }
}

#[test]
fn r91_a_full_window_stops_nobody_else() {
    let (mut world, object) = pair(Generation::Session);
    let local = world.vat(ANN);
    let own_url = world.url(ANN, local);
    let far = world.redeem(BOB, &own_url);
    world.pass(1_000);
    let waiting = world.send(BOB, far, "keep", &[]);
    world.pass(1_000);
    world.severed = true;
    world.cut();
    let asked: Vec<u64> = (0..10).map(|n| world.send(ANN, object, &format!("m{n}"), &[])).collect();
    // A settlement and a request to collect for the same peer come while the window is full.
    assert_eq!(world.call(ANN, local, "release"), (false, "#\"released\"".into()));
    world.ask(ANN, HostOp::Collect);
    world.run();
    assert_eq!(world.call(ANN, local, "greet"), (false, "#\"greet done\"".into()));
    world.severed = false;
    world.pass(60_000);
    assert_eq!(world.settled(BOB, waiting), (false, "#\"late\"".into()));
    for (n, request) in asked.into_iter().enumerate() {
        assert_eq!(world.settled(ANN, request), (false, format!("#\"m{n} done\"")));
    }
}

#[test]
fn what_a_peer_offers_to_take_is_kept_and_respected_also_after_our_restart() {
    let (mut world, object) = pair(Generation::Session);
    world.sides[ANN].kernel.config.window_frames = 4096;
    world.sides[BOB].kernel.config.window_frames = 3;
    world.cut();
    world.pass(5_000);
    world.severed = true;
    world.cut();
    world.restart(ANN, Disk::Keep);
    for n in 0..9 {
        world.send(ANN, object, &format!("m{n}"), &[]);
    }
    world.run();
    assert_eq!(world.db(ANN).len::<Outbox>(), 3);
    world.severed = false;
    world.pass(60_000);
    assert_eq!(methods(&world, BOB).len(), 9);
}

#[test]
fn what_waits_for_a_peer_that_is_closed_is_refused() {
    let (mut world, object) = pair(Generation::Session);
    world.severed = true;
    world.cut();
    let asked: Vec<u64> = (0..8).map(|n| world.send(ANN, object, &format!("m{n}"), &[])).collect();
    world.run();
    let bob = world.sides[BOB].name.clone();
    world.request(ANN, HostOp::PeerClose(bob)).unwrap();
    world.run();
    for request in asked {
        assert!(world.settled(ANN, request).0);
    }
    assert_eq!(world.db(ANN).len::<RunQueue>(), 0);
}
