//! Vats and subclusters: launch, restart, termination.

use crate::harness::*;
use capstan_model::capdata::CapData;

#[test]
fn k43_a_message_reaches_an_object_of_another_vat_and_its_answer_comes_back() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", |delivery| {
        let mut out = Vec::new();
        if let Some(m) = message(delivery)
            && let (Some(result), Some(bob)) = (m.result, m.methargs.slots.first())
        {
            out.push(send(&bob.to_string(), "greet", &[], Some("p+5")));
            out.push(capstan_model::vat::VatSyscall::Subscribe(vref("p+5")));
            out.push(fulfil(result, reference(vref("p+5"))));
        }
        ok(out)
    });
    world.script("bob", |delivery| ok(returns(delivery, CapData::data("#\"hi\""))));
    let (rejected, value) = world.call(vats.root("alice"), "start", &[vats.root("bob").into()]);
    assert!(!rejected);
    assert_eq!(&*value.body, "#\"&0\"");
    assert_eq!(world.methods("bob"), ["greet"]);
    let inner = world.kernel.db().get::<capstan_store::schema::Promises>(&value.slots[0].promise().unwrap());
    assert!(matches!(
        inner.map(|row| &row.state),
        Some(capstan_store::schema::PromiseState::Fulfilled(value)) if &*value.body == "#\"hi\""
    ));
}
