//! Promises between vats, and calls on what is not there yet (02 §5).

use capstan_kernel::host_op::HostOp;
use capstan_model::id::ObjectId;
use capstan_sim::passable::Passable;
use capstan_sim::scripted;
use capstan_sim::world::{KernelId, World};

struct Stage {
    world: World,
    kernel: KernelId,
    alice: ObjectId,
    bob: ObjectId,
}

/// Two puppets; Alice holds Bob.
fn stage(seed: u64) -> Stage {
    let mut world = World::seeded(seed);
    let kernel = world.kernel("ann");
    let (alice, bob) = (world.vat(kernel, scripted::puppet()), world.vat(kernel, scripted::puppet()));
    let mut stage = Stage { world, kernel, alice, bob };
    let bob = stage.bob;
    stage.world.call_with(kernel, alice, "keep", vec!["bob".value(), bob.value()]).fulfils(());
    stage
}

impl Stage {
    /// Lets a puppet do something with texts.
    #[track_caller]
    fn tell(&mut self, puppet: ObjectId, method: &str, args: &[&str]) {
        let args = args.iter().map(|arg| arg.value()).collect();
        self.world.call_with(self.kernel, puppet, method, args).succeeds();
    }

    #[track_caller]
    fn seen(&mut self, puppet: ObjectId, name: &str, what: &str) {
        self.world.run_until_quiet();
        self.world.call_with(self.kernel, puppet, "seen", vec![name.value()]).fulfils(what);
        assert_eq!(self.world.stored(self.kernel, puppet, &format!("twice.{name}")), None, "told twice");
    }
}

#[test]
fn k57_a_promise_resolved_after_it_was_sent() {
    let mut stage = stage(57);
    let (alice, bob) = (stage.alice, stage.bob);
    stage.tell(alice, "promise", &["p"]);
    stage.tell(alice, "call", &["bob", "keep", "x", "$p"]);
    stage.tell(bob, "watch", &["x"]);
    stage.seen(bob, "x", "nothing");
    stage.tell(alice, "fulfil", &["p", "hello"]);
    stage.seen(bob, "x", "fulfilled \"hello\"");
    stage.world.assert_quiescent();
}

#[test]
fn k58_a_promise_resolved_before_it_is_received() {
    let mut stage = stage(58);
    let (alice, bob) = (stage.alice, stage.bob);
    stage.tell(alice, "pass_settled", &["bob", "keep", "x", "hello"]);
    stage.tell(bob, "watch", &["x"]);
    stage.seen(bob, "x", "fulfilled \"hello\"");
    stage.world.assert_quiescent();
}

#[test]
fn k59_a_reply_with_a_promise_for_the_outcome() {
    let mut stage = stage(59);
    let (alice, bob) = (stage.alice, stage.bob);
    stage.tell(alice, "promise", &["p"]);
    stage.tell(alice, "call", &["bob", "keep", "x", "$p"]);
    stage.tell(bob, "watch", &["x"]);
    stage.tell(alice, "begin", &["bob", "promise", "reply", "outcome"]);
    stage.tell(alice, "watch", &["reply.0"]);
    stage.tell(alice, "fulfil", &["p", "hello"]);
    stage.seen(bob, "x", "fulfilled \"hello\"");
    stage.tell(bob, "fulfil", &["outcome", "heard hello"]);
    stage.seen(alice, "reply.0", "fulfilled \"heard hello\"");
    stage.world.assert_quiescent();
}

#[test]
fn k60_a_chain_of_four_links() {
    let mut stage = stage(60);
    let (alice, bob) = (stage.alice, stage.bob);
    for link in ["p1", "p2", "p3", "p4"] {
        stage.tell(alice, "promise", &[link]);
    }
    stage.tell(alice, "call", &["bob", "keep", "x", "$p1"]);
    let mut name = "x".to_owned();
    for (this, next) in [("p1", "p2"), ("p2", "p3"), ("p3", "p4")] {
        stage.tell(bob, "watch", &[&name]);
        let (kernel, next) = (stage.kernel, format!("${next}"));
        let args = vec![this.value(), vec![next.as_str()].value()];
        stage.world.call_with(kernel, alice, "fulfil", args).fulfils(());
        name.push_str(".0");
    }
    stage.tell(bob, "watch", &[&name]);
    stage.seen(bob, &name, "nothing");
    stage.tell(alice, "fulfil", &["p4", "the end"]);
    stage.seen(bob, &name, "fulfilled \"the end\"");
    stage.world.assert_quiescent();
}

/// Bob makes `a` and `b` and hands both to Alice, who watches them.
fn cycle(seed: u64) -> Stage {
    let mut stage = stage(seed);
    let alice = stage.alice;
    for name in ["a", "b"] {
        stage.tell(alice, "begin", &["bob", "promise", name, name]);
        stage.tell(alice, "watch", &[&format!("{name}.0")]);
        stage.seen(alice, &format!("{name}.0"), "nothing");
    }
    stage
}

/// Alice was told of both, each with the other inside.
#[track_caller]
fn assert_cycle(stage: &mut Stage) {
    let (kernel, alice) = (stage.kernel, stage.alice);
    for name in ["a.0", "b.0"] {
        let seen = stage.world.stored(kernel, alice, &format!("seen.{name}")).unwrap();
        assert!(seen.starts_with("fulfilled [<p-"), "{name}: {seen}");
    }
    stage.world.assert_quiescent();
}

#[test]
fn k61_two_promises_that_contain_each_other_in_one_crank() {
    let mut stage = cycle(61);
    let (kernel, bob) = (stage.kernel, stage.bob);
    let args = vec!["a".value(), vec!["$b"].value(), "b".value(), vec!["$a"].value()];
    stage.world.call_with(kernel, bob, "fulfil_both", args).fulfils(());
    assert_cycle(&mut stage);
}

#[test]
fn k62_two_promises_that_contain_each_other_in_two_cranks() {
    let mut stage = cycle(62);
    let (kernel, bob) = (stage.kernel, stage.bob);
    let kp = stage.world.call_with(kernel, bob, "give", vec!["a".value()]).reference();
    stage.world.call_with(kernel, bob, "fulfil", vec!["a".value(), vec!["$b"].value()]).fulfils(());
    stage.world.call_with(kernel, bob, "fulfil", vec!["b".value(), vec![kp.value()].value()]).fulfils(());
    assert_cycle(&mut stage);
}

#[test]
fn k63_two_promises_of_two_vats_that_contain_each_other() {
    let mut stage = cycle(63);
    let (kernel, alice, bob) = (stage.kernel, stage.alice, stage.bob);
    let carol = stage.world.vat(kernel, scripted::puppet());
    let c = stage.world.call_with(kernel, carol, "promise", vec!["c".value()]).reference();
    stage.world.call_with(kernel, alice, "keep", vec!["c".value(), c.value()]).fulfils(());
    stage.tell(alice, "watch", &["c"]);
    let a = stage.world.call_with(kernel, bob, "give", vec!["a".value()]).reference();
    stage.world.call_with(kernel, bob, "fulfil", vec!["a".value(), vec![c.value()].value()]).fulfils(());
    stage.world.call_with(kernel, carol, "fulfil", vec!["c".value(), vec![a.value()].value()]).fulfils(());
    for name in ["a.0", "c"] {
        let seen = stage.world.stored(kernel, alice, &format!("seen.{name}")).unwrap();
        assert!(seen.starts_with("fulfilled [<p-"), "{name}: {seen}");
    }
    stage.tell(bob, "fulfil", &["b", "done"]);
    stage.world.assert_quiescent();
}

#[test]
fn k64_a_promise_resolved_to_one_that_is_resolved() {
    let mut stage = stage(64);
    let (kernel, alice, bob) = (stage.kernel, stage.alice, stage.bob);
    stage.tell(alice, "promise", &["p"]);
    stage.tell(alice, "call", &["bob", "keep", "x", "$p"]);
    stage.tell(bob, "watch", &["x"]);
    let q = stage.world.call_with(kernel, bob, "promise", vec!["q".value()]).reference();
    stage.tell(bob, "fulfil", &["q", "final"]);
    stage.world.call_with(kernel, alice, "fulfil", vec!["p".value(), q.value()]).fulfils(());
    // Bob is told of both in one batch, so that its waiter has the final value.
    let seen = stage.world.stored(kernel, bob, "seen.x").unwrap();
    let inner = seen.strip_prefix("fulfilled <").and_then(|rest| rest.strip_suffix('>')).unwrap();
    assert_eq!(stage.world.stored(kernel, bob, &format!("told.{inner}")).as_deref(), Some("\"final\""));
    stage.world.assert_quiescent();
}

#[test]
fn k65_the_result_of_one_call_as_the_argument_of_another() {
    let mut stage = stage(65);
    let (kernel, alice, bob) = (stage.kernel, stage.alice, stage.bob);
    let counter = stage.world.vat(kernel, scripted::counter());
    stage.world.call_with(kernel, alice, "keep", vec!["counter".value(), counter.value()]).fulfils(());
    stage.world.pause(kernel, counter);
    stage.tell(alice, "begin", &["counter", "bump", "r"]);
    let keep = stage.world.start_call(
        kernel,
        alice,
        "call",
        vec!["bob".value(), "keep".value(), "x".value(), "$r".value()],
    );
    stage.world.run_until_quiet();
    stage.world.resume(kernel, counter);
    stage.world.back_to(keep).fulfils(());
    stage.tell(bob, "watch", &["x"]);
    stage.seen(bob, "x", "fulfilled 1");
    stage.seen(alice, "r", "fulfilled 1");
    stage.world.assert_quiescent();
}

#[test]
fn k66_the_result_is_there_only_while_the_second_call_runs() {
    let mut stage = stage(66);
    let (kernel, alice, bob) = (stage.kernel, stage.alice, stage.bob);
    let counter = stage.world.vat(kernel, scripted::counter());
    stage.world.call_with(kernel, alice, "keep", vec!["counter".value(), counter.value()]).fulfils(());
    stage.world.pause(kernel, counter);
    stage.tell(alice, "begin", &["counter", "bump", "r"]);
    stage.tell(alice, "call", &["bob", "keep", "x", "$r"]);
    stage.tell(bob, "watch", &["x"]);
    let second = stage.world.call_with(kernel, bob, "hang", vec!["h".value()]).pending();
    stage.world.resume(kernel, counter);
    stage.seen(bob, "x", "fulfilled 1");
    stage.tell(bob, "fulfil", &["h", "after"]);
    stage.world.back_to(second).fulfils("after");
    stage.world.assert_quiescent();
}

#[test]
fn k67_a_call_on_the_result_of_a_call() {
    let mut stage = stage(67);
    let (kernel, alice, bob) = (stage.kernel, stage.alice, stage.bob);
    stage.world.pause(kernel, bob);
    stage.tell(alice, "begin", &["bob", "object", "o", "thing"]);
    stage.tell(alice, "begin", &["o", "whoami", "answer"]);
    stage.seen(alice, "answer", "nothing");
    stage.world.resume(kernel, bob);
    stage.seen(alice, "answer", "fulfilled \"o+d1/1\"");
    stage.world.assert_quiescent();
}

#[test]
fn k68_messages_to_a_promise_arrive_in_order_once_it_resolves() {
    let mut stage = stage(68);
    let (kernel, alice, bob) = (stage.kernel, stage.alice, stage.bob);
    let counter = stage.world.vat(kernel, scripted::counter());
    stage.tell(alice, "begin", &["bob", "promise", "p", "p"]);
    stage.tell(alice, "begin", &["p.0", "note", "first", "one"]);
    stage.tell(alice, "begin", &["p.0", "note", "second", "two"]);
    stage.seen(alice, "first", "nothing");
    let fulfil = vec!["p".value(), counter.value()];
    stage.world.start_call(kernel, bob, "fulfil", fulfil);
    let third = stage.world.start_call(kernel, counter, "note", vec!["three".value()]);
    stage.world.back_to(third).succeeds();
    stage.world.call_with(kernel, counter, "note", vec!["four".value()]).fulfils(4);
    let notes: Vec<_> = stage.world.notes(kernel, counter);
    let notes: Vec<&str> = notes.iter().map(AsRef::as_ref).collect();
    let at = |note| notes.iter().position(|n| *n == note).unwrap();
    assert!(at("one") < at("two") && at("two") < at("four") && at("three") < at("four"), "{notes:?}");
    stage.seen(alice, "second", &format!("fulfilled {}", at("two") + 1));
    stage.world.assert_quiescent();
}

#[test]
fn k69_a_method_that_throws() {
    let mut world = World::seeded(69);
    let ann = world.kernel("ann");
    let echo = world.vat(ann, scripted::echo());
    world.call_with(ann, echo, "fail", vec!["no such door".value()]).rejects("no such door");
    world.call_with(ann, echo, "echo", vec![5.value()]).fulfils(5);
    world.assert_quiescent();
}

#[test]
fn k70_a_method_that_rejects_later() {
    let mut stage = stage(70);
    let (kernel, alice, bob) = (stage.kernel, stage.alice, stage.bob);
    stage.tell(alice, "begin", &["bob", "hang", "r", "h"]);
    stage.tell(bob, "break", &["h", "too late"]);
    stage.seen(alice, "r", "rejected [Error: too late]");
    stage.world.call_with(kernel, bob, "seen", vec!["x".value()]).fulfils("nothing");
    stage.world.assert_quiescent();
}

#[test]
fn k71_two_subscriptions_one_notify() {
    let mut stage = stage(71);
    let (alice, bob) = (stage.alice, stage.bob);
    stage.tell(alice, "promise", &["p"]);
    stage.tell(alice, "call", &["bob", "keep", "x", "$p"]);
    stage.tell(bob, "watch", &["x"]);
    stage.tell(bob, "watch", &["x"]);
    stage.tell(alice, "fulfil", &["p", "once"]);
    stage.seen(bob, "x", "fulfilled \"once\"");
    stage.world.assert_quiescent();
}

#[test]
fn k72_subscribing_to_a_settled_promise() {
    let mut stage = stage(72);
    let (kernel, alice, bob) = (stage.kernel, stage.alice, stage.bob);
    let p = stage.world.call_with(kernel, alice, "promise", vec!["p".value()]).reference();
    stage.tell(alice, "fulfil", &["p", "long ago"]);
    stage.world.call_with(kernel, bob, "keep", vec!["x".value(), p.value()]).fulfils(());
    stage.tell(bob, "watch", &["x"]);
    stage.seen(bob, "x", "fulfilled \"long ago\"");
    assert!(stage.world.ask(kernel, HostOp::Collect).is_ok());
    stage.world.assert_quiescent();
}
