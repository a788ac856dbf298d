//! A kernel that is reset while it runs, and those it talked with (02 §14).

use crate::pairs::{PAIRS, Pair, pair};
use capstan_kernel::host_op::{Answer, HostOp, Refusal};
use capstan_model::peer::Incarnation;
use capstan_sim::passable::Passable;
use capstan_sim::scripted;
use capstan_sim::world::{KernelId, Outcome, Strike, World};
use capstan_store::schema::{Meta, Remotes, Vats};

fn reset(life: &str) -> HostOp {
    HostOp::Reset { life: Incarnation::new(life) }
}

fn life(world: &World, kernel: KernelId) -> String {
    world.db(kernel).get::<Meta>(&"incarnation".into()).unwrap().to_string()
}

/// What became of a call that a reset may have met: it is settled, and not with a value.
#[track_caller]
fn failed(outcome: Option<Outcome>) -> String {
    match outcome {
        Some(Outcome::Rejected(reason)) => format!("{reason:?}"),
        Some(Outcome::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn k200_peers_of_a_reset_kernel_meet_another_life_in_every_pairing() {
    for generations in PAIRS {
        let Pair { mut world, ann, bob, url, .. } = pair(200, generations);
        let held = world.redeem(ann, &url);
        world.call(ann, held, "bump").fulfils(1);
        let rid = world.remote_of(ann, bob);
        assert_eq!(world.ask(bob, reset("bob-2")), Ok(Answer::Done));
        assert_eq!((life(&world, bob).as_str(), world.db(bob).len::<Vats>()), ("bob-2", 0));
        assert_eq!(world.db(bob).len::<Remotes>(), 0);
        // Ann finds out by herself or with her next call; then what she held is dead and a new URL works.
        let stale = world.start_call(ann, held, "bump", vec![]);
        world.run_until_quiet();
        failed(world.outcome(stale));
        let counter = world.vat(bob, scripted::counter());
        let url = world.issue(bob, counter);
        let first = world.start_call(ann, &url, "bump", vec![]);
        world.run_until_quiet();
        if matches!(world.outcome(first), Some(Outcome::Refused(_))) {
            world.call(ann, &url, "bump").fulfils(1);
        }
        assert_eq!(world.remote_of(ann, bob), rid, "the same endpoint");
        let seen = world.db(ann).get::<Remotes>(&rid).unwrap().restarts_seen;
        assert_eq!(seen, 1, "{generations:?}");
        world.assert_quiescent();
        world.assert_names_match(ann, bob);
    }
}

#[test]
fn k200_calls_in_both_directions_settle_when_one_side_is_reset() {
    for generations in PAIRS {
        let Pair { mut world, ann, bob, url, .. } = pair(201, generations);
        let held = world.redeem(ann, &url);
        let (slow_ann, slow_bob) = (world.vat(ann, scripted::counter()), world.vat(bob, scripted::counter()));
        let to_ann = world.issue(ann, slow_ann);
        let to_bob = world.issue(bob, slow_bob);
        let (at_ann, at_bob) = (world.redeem(bob, &to_ann), world.redeem(ann, &to_bob));
        world.pause(ann, slow_ann);
        world.pause(bob, slow_bob);
        let from_bob = world.start_call(bob, at_ann, "bump", vec![]);
        let from_ann = world.start_call(ann, at_bob, "bump", vec![]);
        world.advance(1_000);
        assert_eq!((world.outcome(from_ann), world.outcome(from_bob)), (None, None));
        assert_eq!(world.ask(bob, reset("bob-2")), Ok(Answer::Done));
        assert_eq!(failed(world.outcome(from_bob)), Refusal::Reset.to_string());
        world.resume(ann, slow_ann);
        // What ann decided for bob's old life is nobody's; her own call is rejected when she hears of the new one.
        let nudge = world.start_call(ann, held, "note", vec!["x".value()]);
        world.run_until_quiet();
        failed(world.outcome(nudge));
        failed(world.outcome(from_ann));
        world.assert_quiescent();
    }
}

#[test]
fn k200_a_crash_in_the_middle_of_a_reset_leaves_the_old_state_or_the_new() {
    for (strike, happened) in [(Strike::BeforeCommit, false), (Strike::AfterCommit, true)] {
        let Pair { mut world, ann, bob, url, .. } = pair(202, PAIRS[0]);
        let held = world.redeem(ann, &url);
        world.call(ann, held, "bump").fulfils(1);
        world.run_until_quiet();
        let before = life(&world, bob);
        world.strike_at(bob, world.commits(bob), strike);
        let request = world.request(bob, reset("bob-2"));
        world.run_until(|world| !world.is_up(bob));
        assert_eq!(world.answer(request), None, "nothing was said before it was durable");
        world.start(bob);
        world.run_until_quiet();
        if happened {
            assert_eq!((life(&world, bob).as_str(), world.db(bob).len::<Vats>()), ("bob-2", 0));
            let stale = world.start_call(ann, held, "bump", vec![]);
            world.run_until_quiet();
            failed(world.outcome(stale));
        } else {
            assert_eq!(life(&world, bob), before);
            world.call(ann, held, "bump").fulfils(2);
        }
        world.assert_quiescent();
    }
}
