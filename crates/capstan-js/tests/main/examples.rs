//! The example vats do what they say.

use crate::world::{Vat, World, start_of};
use capstan_model::vat::VatLimits;

const COUNTER: &str = include_str!("../../../../examples/counter.js");
const GREETER: &str = include_str!("../../../../examples/greeter.js");
const CHATTER: &str = include_str!("../../../../examples/chatter.js");

#[test]
fn the_counter_goes_on_after_a_restart() {
    let mut vat = Vat::start(COUNTER);
    assert_eq!(vat.started.root_methods, ["bump", "read"]);
    assert_eq!(vat.answer(r##"#["bump",[]]"##, &[]).1, "#1");
    let mut again = Vat::try_start(start_of(1, COUNTER, VatLimits::default(), vat.rows())).unwrap();
    assert_eq!(again.answer(r##"#["bump",[2]]"##, &[]).1, "#3");
}

#[test]
fn the_greeter_greets() {
    assert_eq!(Vat::start(GREETER).answer(r##"#["greet",["Ann"]]"##, &[]).1, "#\"Hello, Ann!\"");
}

#[test]
fn two_chatters_talk() {
    let driver = "import { E, Far } from '@endo/far'; export const buildRootObject = () => Far('driver', { async go(ann, bob) {
        await E(ann).meet(bob); await E(bob).meet(ann); E(ann).askForever();
        return [await E(ann).ask(1), await E(bob).ask(5), await E(ann).log(), await E(bob).log(), await E(ann).counts()]; } });";
    let talk =
        r##"#[2,6,["answer 2","question 5"],["waiting","question 1","answer 6"],{"asked":2,"replied":1}]"##;
    assert_eq!(World::new(&[driver, CHATTER, CHATTER]).bootstrap("go"), (false, talk.to_owned()));
}
