//! How many messages may wait for a vat (04 §8).

use crate::harness::*;
use capstan_kernel::host_op::HostOp;
use capstan_store::schema::{RunQueue, Vats};

#[test]
fn a_message_beyond_the_limit_is_refused_to_its_sender_and_nobody_ends() {
    let mut world = World::new();
    let mut op = World::launch_op(&["alice", "bob"]);
    if let HostOp::Launch(config) = &mut op {
        config.vats[0].limits.queued_max = 3;
    }
    for name in ["alice", "bob"] {
        world.script(name, obliging);
    }
    let vats = world.launch_with(op);
    world.hold("alice");
    let first = world.send(vats.root("alice"), "flies", &[]);
    let sent: Vec<_> = (0..5).map(|_| world.send(vats.root("alice"), "waits", &[])).collect();
    world.run();
    for refused in &sent[3..] {
        let (rejected, value) = world.settled(*refused);
        assert!(
            rejected && value.body.contains("limit of 3 messages queued for v1 exceeded"),
            "{}",
            value.body
        );
        assert_eq!(code(&value), "DELIVERY_FAILED");
    }
    assert!(!world.call(vats.root("bob"), "x", &[]).0);
    world.release("alice");
    for answered in sent[..3].iter().chain([&first]) {
        assert!(!world.settled(*answered).0);
    }
    assert_eq!((world.rows::<Vats>(), world.rows::<RunQueue>()), (2, 0));
    assert!(!world.call(vats.root("alice"), "again", &[]).0);
}
