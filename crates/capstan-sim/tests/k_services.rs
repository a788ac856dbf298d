//! Kernel services, also over the network and through crashes (02 §10.2).

use capstan_model::id::{KRef, ObjectId};
use capstan_model::smallcaps::Value;
use capstan_sim::passable::Passable;
use capstan_sim::scripted;
use capstan_sim::world::{KernelId, Restart, Strike, World};

fn echo(method: &str, args: &[Value<KRef>]) -> Result<Value<KRef>, String> {
    match method {
        "echo" => Ok(Value::Array(args.to_vec())),
        "nothing" => Ok(Value::Undefined),
        _ => Err(format!("no method {method}")),
    }
}

struct Stage {
    world: World,
    ann: KernelId,
    alice: ObjectId,
    service: ObjectId,
}

/// Alice, a puppet, holds a service of her kernel.
fn stage(seed: u64) -> Stage {
    let mut world = World::seeded(seed);
    let ann = world.kernel("ann");
    let alice = world.vat(ann, scripted::puppet());
    let service = world.service(ann, "echo", echo);
    world.call_with(ann, alice, "keep", vec!["service".value(), service.value()]).fulfils(());
    Stage { world, ann, alice, service }
}

impl Stage {
    fn seen(&mut self, name: &str) -> String {
        let value = self.world.call_with(self.ann, self.alice, "seen", vec![name.value()]).value();
        let Value::String(seen) = value else { panic!("{value:?}") };
        seen
    }

    fn begin(&mut self, method: &str) {
        let args = ["service", method, "answer", "$service"].map(Passable::value).to_vec();
        let _ = self.world.start_call(self.ann, self.alice, "begin", args);
    }
}

#[test]
fn k180_k181_vats_call_services() {
    let Stage { mut world, ann, alice, service } = stage(180);
    let mut call = |args: Vec<Value<KRef>>| world.call_with(ann, alice, "call", args).started();
    let echoed = call(vec!["service".value(), "echo".value(), "hello".value(), "$service".value()]);
    let nothing = call(vec!["service".value(), "nothing".value()]);
    let unknown = call(vec!["service".value(), "bogus".value()]);
    world.back_to(echoed).fulfils(vec!["hello".value(), service.value()]);
    world.back_to(nothing).fulfils(());
    world.back_to(unknown).rejects("[KERNEL:DELIVERY_FAILED] no method bogus");
    world.call_with(ann, alice, "tell", vec!["service".value(), "bogus".value()]).succeeds();
    assert!(world.log(ann).iter().any(|line| line.contains("'echo' failed: no method bogus")));
    world.assert_quiescent();
}

#[test]
fn k180_a_peer_calls_a_service_that_it_was_given() {
    let Stage { mut world, ann, service, .. } = stage(1800);
    let bob = world.kernel("bob");
    let url = world.issue(ann, service);
    let far = world.redeem(bob, &url);
    world.call_with(bob, far, "echo", vec![far.value()]).fulfils(vec![far.value()]);
    world.call(bob, far, "bogus").rejects("[KERNEL:DELIVERY_FAILED] no method bogus");
    world.pause_service(ann, "echo");
    let waiting = world.call(bob, far, "nothing").pending();
    world.restart(ann, Restart::Keep);
    world.back_to(waiting).rejects("DELIVERY_FAILED");
    world.resume_service(ann, "echo");
    world.call(bob, far, "nothing").fulfils(());
    world.assert_quiescent();
}

#[test]
fn k185_a_call_in_progress_when_the_kernel_dies_rejects() {
    let mut stage = stage(185);
    stage.world.pause_service(stage.ann, "echo");
    stage.begin("nothing");
    stage.world.run_until_quiet();
    assert_eq!(stage.seen("answer"), "nothing");
    stage.world.restart(stage.ann, Restart::Keep);
    stage.world.resume_service(stage.ann, "echo");
    assert!(stage.seen("answer").contains("DELIVERY_FAILED"), "{}", stage.seen("answer"));
    assert_eq!(stage.world.served(stage.ann, "echo"), ["nothing"]);
    stage.world.assert_quiescent();
}

/// At whichever commit the kernel dies, the service is called at most once, and the caller is told what came of it.
#[test]
fn k185_a_death_at_any_commit_calls_the_service_at_most_once() {
    let mut ends = std::collections::BTreeSet::new();
    for (at, strike) in (0..12).flat_map(|at| [(at, Strike::BeforeCommit), (at, Strike::AfterCommit)]) {
        let mut stage = stage(1850 + at);
        let first = stage.world.commits(stage.ann);
        stage.world.strike_at(stage.ann, first + at, strike);
        stage.begin("echo");
        stage.world.run_until_quiet();
        let struck = !stage.world.spare(stage.ann);
        stage.world.start(stage.ann);
        stage.world.run_until_quiet();
        let served = stage.world.served(stage.ann, "echo").len();
        let seen = stage.seen("answer");
        let end = match seen.split(' ').next() {
            Some("fulfilled") => "answered",
            Some("rejected") if seen.contains("DELIVERY_FAILED") => "lost",
            Some("nothing") if served == 0 => "never asked",
            _ => panic!("{at} {strike:?}: {seen}, served {served} times\n{}", stage.world.trace(80)),
        };
        assert!(served <= 1 && (end != "answered" || served == 1), "{at} {strike:?}: served {served} times");
        ends.insert((struck, end));
        stage.world.assert_quiescent();
    }
    for end in [(true, "never asked"), (true, "lost"), (true, "answered"), (false, "answered")] {
        assert!(ends.contains(&end), "{end:?} is not among {ends:?}");
    }
}
