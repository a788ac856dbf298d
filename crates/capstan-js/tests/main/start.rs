//! Starting a vat: what works and each way it fails (04 §4).

use crate::world::{Vat, start_of};
use capstan_model::vat::{CodeFormat, VatLimits};

const ROOT: &str = "import { Far } from '@endo/far'; export const buildRootObject = ";

fn fails(source: &str) -> String {
    Vat::try_start(start_of(1, source, VatLimits::default(), Vec::new())).err().unwrap()
}

#[test]
fn a_vat_starts_and_names_its_methods() {
    let vat =
        Vat::start(&format!("{ROOT} () => Far('root', {{ hello() {{}}, add(a, b) {{ return a + b; }} }});"));
    assert_eq!(vat.started.root_methods, ["add", "hello"]);
    assert_eq!(vat.started.syscalls, []);
}

#[test]
fn k134_a_vat_that_throws_while_starting_says_why() {
    assert_eq!(fails("throw Error('at module scope');"), "at module scope");
    assert_eq!(
        fails("export function buildRootObject() { throw Error('while building'); }"),
        "while building"
    );
    assert_eq!(fails("export const x = 1;"), "vat source bundle lacks buildRootObject() function");
    assert_eq!(
        fails("export const buildRootObject = () => new Promise(() => {});"),
        "buildRootObject unresolved"
    );
    assert_eq!(
        fails("export const buildRootObject = () => ({});"),
        "buildRootObject() must return a remotable object with an interface"
    );
    assert!(fails("this is no program").contains("expecting"));
}

#[test]
fn only_served_modules_can_be_imported() {
    let why = fails("import fs from 'node:fs'; export const buildRootObject = () => fs;");
    assert!(why.contains("node:fs") && why.contains("@endo/far"), "{why}");
    let why = fails("import { host } from 'capstan:lockdown'; export const buildRootObject = () => host;");
    assert!(why.contains("capstan:lockdown"), "{why}");
    let why = fails("export const buildRootObject = async () => import('capstan:lockdown');");
    assert!(why.contains("dynamically"), "{why}");
    let all = "import { E } from '@endo/eventual-send'; import { makePromiseKit } from '@endo/promise-kit'; \
        import { makeDefaultExo } from '@metamask/kernel-utils/exo'; import * as all from 'capstan'; \
        export const buildRootObject = () => makeDefaultExo('root', { a() {} });";
    assert_eq!(Vat::start(all).started.root_methods, ["a"]);
}

#[test]
fn k143_a_malformed_bundle_is_refused() {
    let mut start = start_of(1, "", VatLimits::default(), Vec::new());
    start.code.format = CodeFormat::Bundle;
    for (text, why) in [
        ("null", "Invalid bundle: must be an object"),
        (r#"{"moduleFormat":"x"}"#, "Unknown bundle format: x"),
        (r#"{"moduleFormat":"iife"}"#, "Invalid bundle: missing code"),
        (r#"{"moduleFormat":"iife","code":1}"#, "Invalid bundle: code must be a string"),
    ] {
        start.code.text = text.into();
        assert_eq!(Vat::try_start(start.clone()).err().unwrap(), why);
    }
    start.code.text = r#"{"moduleFormat":"iife","code":"var __vatExports__ = {};"}"#.into();
    assert_eq!(Vat::try_start(start).err().unwrap(), "vat source bundle lacks buildRootObject() function");
}

#[test]
fn k146_parameters_and_powers_reach_the_vat() {
    let source = format!(
        "{ROOT} (powers, parameters) => Far('root', {{ ask() {{ return [typeof powers.exitVat, parameters]; }} }});"
    );
    let mut start = start_of(1, &source, VatLimits::default(), Vec::new());
    start.parameters = Some(r#"{"name":"x"}"#.into());
    let mut vat = Vat::try_start(start).unwrap();
    assert_eq!(vat.answer(r##"#["ask",[]]"##, &[]).1, r##"#["function",{"name":"x"}]"##);
}

#[test]
fn a_vat_can_end_itself() {
    use crate::world::cap;
    use capstan_model::vat::VatSyscall;
    let source = format!(
        "{ROOT} powers => Far('root', {{ quit() {{ powers.exitVat('done'); }}, fail() {{ powers.exitVatWithFailure(Error('no')); }} }});"
    );
    let mut vat = Vat::start(&source);
    let exits = |reply: capstan_model::vat::VatReply| {
        reply.syscalls.into_iter().find(|s| matches!(s, VatSyscall::Exit { .. })).unwrap()
    };
    assert_eq!(
        exits(vat.call(r##"#["quit",[]]"##, &[])),
        VatSyscall::Exit { failure: false, info: cap("#\"done\"", &[]) }
    );
    let why = cap(r##"#{"#error":"no","name":"Error"}"##, &[]);
    assert_eq!(exits(vat.call(r##"#["fail",[]]"##, &[])), VatSyscall::Exit { failure: true, info: why });
}
