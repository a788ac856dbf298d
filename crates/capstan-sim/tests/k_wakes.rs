//! What vats do between their cranks (02 §6).

use capstan_model::id::ObjectId;
use capstan_sim::passable::Passable;
use capstan_sim::scripted;
use capstan_sim::world::{KernelId, Restart, World};

fn puppet_and_counter(world: &mut World, ann: KernelId) -> (ObjectId, ObjectId) {
    let (puppet, counter) = (world.vat(ann, scripted::puppet()), world.vat(ann, scripted::counter()));
    world.call_with(ann, puppet, "keep", vec!["c".value(), counter.value()]).fulfils(());
    (puppet, counter)
}

#[test]
fn k94_a_timers_send_is_delivered_whatever_becomes_of_the_crank_beside_it() {
    for seed in 0..20 {
        let mut world = World::seeded(seed);
        let ann = world.kernel("ann");
        let (puppet, counter) = puppet_and_counter(&mut world, ann);
        let (bob, _) = puppet_and_counter(&mut world, ann);
        world.pause(ann, bob);
        let doomed = world.start_call(ann, bob, "misbehave", vec!["c".value(), "bump".value()]);
        let told = world.start_call(ann, puppet, "later", vec!["c".value(), "bump".value()]);
        world.run_until_quiet();
        world.back_to(told).fulfils(());
        world.resume(ann, bob);
        world.back_to(doomed).rejects("ILLEGAL_SYSCALL");
        world.call(ann, counter, "total").fulfils(1);
        world.call_with(ann, puppet, "seen", vec!["later".value()]).fulfils("1");
        world.assert_quiescent();
    }
}

#[test]
fn a_timer_dies_with_the_process_and_with_a_crash_either_all_or_nothing_of_it_happened() {
    for seed in 0..40 {
        let mut world = World::seeded(seed);
        let ann = world.kernel("ann");
        let (puppet, counter) = puppet_and_counter(&mut world, ann);
        world.start_call(ann, puppet, "later", vec!["c".value(), "bump".value()]);
        world.advance(seed % 16);
        world.restart(ann, Restart::Keep);
        world.run_until_quiet();
        let times = world.stored(ann, puppet, "times.later").map_or(0, |text| text.parse().unwrap());
        world.call(ann, counter, "total").fulfils(times);
        world.assert_quiescent();
    }
}
