//! Limits of our own make things slower and lose nothing; whoever returns says so (03 B-33, B-33c).

use capstan_kernel::kernel::Generation;
use capstan_model::peer::Millis;
use capstan_sim::passable::Passable;
use capstan_sim::scripted;
use capstan_sim::world::World;
use capstan_wire::link::LinkOptions;
use std::num::NonZeroU32;

/// Dials again only after an hour.
fn patient(links: &mut LinkOptions) {
    links.retry_base = Millis(3_600_000);
    links.retry_cap = Millis(3_600_000);
}

#[test]
fn r42_a_message_beyond_the_peers_limit_fails_before_it_has_a_number_or_a_dial() {
    const LIMIT: usize = 2_000;
    let mut world = World::seeded(42);
    let ann = world.kernel_with("ann", |_, links| patient(links));
    let bob = world.kernel_with("bob", |config, _| config.frame_bytes_max = LIMIT as u64);
    let counter = world.vat(bob, scripted::counter());
    let url = world.issue(bob, counter);
    let held = world.redeem(ann, &url);
    let note = |world: &mut World, text: String| world.start_call(ann, held, "note", vec![text.value()]);
    let id = note(&mut world, "x".repeat(10));
    world.run_until_quiet();
    world.back_to(id).succeeds();
    // The next frame has numbers of the same length, and the name of a result as long.
    let said = world.numbered(ann, bob);
    let room = LIMIT - said.iter().find(|text| text.contains("xxxxxxxxxx")).unwrap().len() + 10;
    world.kill(bob);
    world.advance(10);
    let (sent, dials) = (world.session(ann, bob).sent, world.dials(ann, bob));
    for text in ["x".repeat(room + 1), "é".repeat(room / 2 + 1)] {
        let id = note(&mut world, text);
        world.run_until(|world| world.outcome(id).is_some());
        world.back_to(id).rejects("exceeds the peer's limit of 2000");
    }
    assert_eq!((world.session(ann, bob).sent, world.outbox_len(ann)), (sent, 0));
    assert_eq!(world.dials(ann, bob), dials, "none was made for it");
    let ids = [note(&mut world, "y".repeat(room)), note(&mut world, "é".repeat(room / 2))];
    world.start(bob);
    world.run_until_quiet();
    for id in ids {
        world.back_to(id).succeeds();
    }
    world.assert_quiescent();
}

#[test]
fn r75_a_thousand_calls_in_a_second_are_slower_under_a_limit_and_not_lost() {
    let mut world = World::seeded(75);
    let ann = world.kernel_with("ann", |config, links| {
        config.audit_every_transaction = false;
        links.messages_per_second = NonZeroU32::new(100);
    });
    let bob = world.kernel_with("bob", |config, _| config.audit_every_transaction = false);
    let counter = world.vat(bob, scripted::counter());
    let url = world.issue(bob, counter);
    let held = world.redeem(ann, &url);
    let begun = world.now();
    let ids: Vec<_> = (0..1_000).map(|_| world.start_call(ann, held, "bump", vec![])).collect();
    let last = ids[999];
    while world.outcome(last).is_none() {
        world.advance(100);
    }
    let took = world.now().0 - begun.0;
    assert!((9_000..20_000).contains(&took), "{took} ms");
    world.run_until_quiet();
    for (at, id) in (1..).zip(ids) {
        world.back_to(id).fulfils(at);
    }
    world.assert_quiescent();
}

/// Toward a kernel of the reference, which loses what it would send beyond 100 frames in a second.
#[test]
fn r75_calls_in_a_burst_reach_a_classic_peer_at_a_pace_that_it_can_answer() {
    let mut world = World::seeded(75);
    let ann = world.kernel_with("ann", |config, _| config.audit_every_transaction = false);
    let bob = world.kernel_with("bob", |config, links| {
        config.audit_every_transaction = false;
        config.generation = Generation::Classic;
        links.messages_per_second = NonZeroU32::new(100);
    });
    let counter = world.vat(bob, scripted::counter());
    let url = world.issue(bob, counter);
    let held = world.redeem(ann, &url);
    world.advance(2_000);
    let begun = world.now();
    let ids: Vec<_> = (0..200).map(|_| world.start_call(ann, held, "bump", vec![])).collect();
    let last = ids[199];
    while world.outcome(last).is_none() {
        world.advance(10);
    }
    let took = world.now().0 - begun.0;
    assert!((2_000..4_000).contains(&took), "{took} ms");
    for (at, id) in (1..).zip(ids) {
        world.back_to(id).fulfils(at);
    }
    world.run_until_quiet();
    world.assert_quiescent();
}

/// The one who waits would not try again for an hour: it is found by the one who returns.
#[test]
fn whoever_returns_knocks_at_those_who_may_wait() {
    let mut world = World::seeded(33);
    let ann = world.kernel_with("ann", |_, links| patient(links));
    let bob = world.kernel("bob");
    let counter = world.vat(bob, scripted::counter());
    let url = world.issue(bob, counter);
    let held = world.redeem(ann, &url);
    world.call(ann, held, "bump").fulfils(1);
    for round in 2..5 {
        world.kill(bob);
        world.advance(60_000);
        let id = world.start_call(ann, held, "bump", vec![]);
        world.advance(1_000);
        assert!(world.outcome(id).is_none());
        world.start(bob);
        world.advance(500);
        world.back_to(id).fulfils(round);
    }
    world.assert_quiescent();
}
