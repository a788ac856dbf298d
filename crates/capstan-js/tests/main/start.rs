//! Starting a vat: what works and each way it fails (04 §4).

use crate::world::{Vat, start_of};
use capstan_model::vat::{CodeFormat, VatLimits, VatStart};

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
    assert_eq!(fails("throw Error('at module scope');"), "at module scope (vat.js:1:6)");
    assert_eq!(
        fails("\nexport function buildRootObject() {\n  throw Error('while building'); }"),
        "while building (vat.js:3:9)"
    );
    assert_eq!(fails("throw 'no error';"), "no error");
    assert_eq!(fails("export const x = 1;"), "vat source bundle lacks buildRootObject() function");
    assert_eq!(
        fails("export const buildRootObject = () => new Promise(() => {});"),
        "buildRootObject unresolved"
    );
    assert_eq!(
        fails("export const buildRootObject = () => ({});"),
        "buildRootObject() must return a remotable object with an interface"
    );
    let why = fails("const fine = 1;\nthis is no program");
    assert!(why.contains("expecting") && why.contains("(vat.js:2:"), "{why}");
}

/// A bundle made of two sources: its third line is the sixth of `lib/a.ts`.
fn mapped(code: &str) -> VatStart {
    let mut start = start_of(1, "", VatLimits::default(), Vec::new());
    let map =
        serde_json::json!({"version": 3, "sources": ["vat.ts", "lib/a.ts"], "mappings": "AAAA;AAAA;ACKA"});
    let code = format!(
        "var __vatExports__ = (function (exports, __vatImports__) {{ const {{ Far }} = __vatImports__('@endo/far');\n\n{code}\nreturn exports; }})({{}}, __vatImports__);"
    );
    let bundle = serde_json::json!({"moduleFormat": "iife", "code": code, "exports": ["buildRootObject"], "external": ["@endo/far"], "sourceMap": map});
    start.code.format = CodeFormat::Bundle;
    start.code.name = "vat.bundle".into();
    start.code.text = bundle.to_string().into();
    start
}

#[test]
fn stacks_that_a_vat_writes_to_its_log_tell_of_its_sources() {
    let code = "exports.buildRootObject = () => Far('root', { tell: () => { console.error(`so: ${Error('boom').stack}`); } });";
    let mut vat = Vat::try_start(mapped(code)).unwrap();
    vat.answer(r##"#["tell",[]]"##, &[]);
    assert!(vat.logs[0].starts_with("so:     at tell (lib/a.ts:6:1)"), "{:?}", vat.logs);
}

#[test]
fn k134_what_goes_wrong_in_a_bundle_has_its_place_in_the_sources() {
    let fails = |code: &str| Vat::try_start(mapped(code)).err().unwrap();
    assert_eq!(
        fails("exports.buildRootObject = () => { throw Error('while building'); };"),
        "while building (lib/a.ts:6:1)"
    );
    assert_eq!(fails("throw Error('at once');"), "at once (lib/a.ts:6:1)");
    assert!(fails("const = 1;").ends_with(" (lib/a.ts:6:1)"));
    let code = "exports.buildRootObject = () => Far('root', { fail: () => { throw Error('boom'); } });";
    let mut vat = Vat::try_start(mapped(code)).unwrap();
    vat.answer(r##"#["fail",[]]"##, &[]);
    assert!(
        vat.logs[0].starts_with("error:liveSlots:v1#70001: Error: boom\n    at fail (lib/a.ts:6:1)"),
        "{:?}",
        vat.logs
    );
    // A second vat runs what the first compiled.
    let mut again = Vat::try_start(mapped(code)).unwrap();
    again.answer(r##"#["fail",[]]"##, &[]);
    assert_eq!(vat.logs, again.logs);
}

#[test]
fn a_bundle_gets_only_what_is_served() {
    let mut start = mapped("");
    start.code.text = start.code.text.replace("[\"@endo/far\"]", "[\"node:fs\"]").into();
    assert!(Vat::try_start(start.clone()).err().unwrap().contains("node:fs"));
    start.code.text = start.code.text.replace("[\"node:fs\"]", "[\"capstan:lockdown\"]").into();
    assert!(Vat::try_start(start.clone()).err().unwrap().contains("capstan:lockdown"));
    start.code.text = start.code.text.replace("[\"capstan:lockdown\"]", "3").into();
    assert_eq!(Vat::try_start(start).err().unwrap(), "Invalid bundle: external must be a list of strings");
    let code = "exports.buildRootObject = () => Far('root', { ask: name => typeof __vatImports__(name), later: () => import('@endo/far') });";
    let mut vat = Vat::try_start(mapped(code)).unwrap();
    for (name, kind) in [
        ("@endo/far", "object"),
        ("capstan:lockdown", "undefined"),
        ("capstan", "undefined"),
        ("__proto__", "undefined"),
    ] {
        assert_eq!(vat.answer(&format!("#[\"ask\",[\"{name}\"]]"), &[]).1, format!("#\"{kind}\""), "{name}");
    }
    assert!(vat.answer(r##"#["later",[]]"##, &[]).0);
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
    let why = cap(r##"#{"#error":"no","errorId":"error:liveSlots:v1#70001","name":"Error"}"##, &[]);
    assert_eq!(exits(vat.call(r##"#["fail",[]]"##, &[])), VatSyscall::Exit { failure: true, info: why });
}

#[test]
fn k135_an_unheard_rejection_is_logged_and_nothing_fails() {
    let source = format!(
        "Promise.reject(Error('in module')); Promise.reject(Error('heard')).catch(() => {{}}); {ROOT} () => {{ Promise.reject(TypeError('in build'));
        return Far('root', {{ bootstrap() {{ (async () => {{ throw Error('in bootstrap'); }})(); return 1; }},
            late() {{ const p = Promise.reject(Error('late')); Promise.resolve().then(() => p.catch(() => {{}})); return 2; }},
            odd() {{ Promise.reject(new Proxy({{}}, {{ get() {{ throw Error(); }} }})); Promise.reject(3); for (let i = 0; i < 1000; i += 1) Promise.reject(i); return 3; }} }}); }};"
    );
    let mut vat = Vat::start(&source);
    let firsts = |vat: &mut Vat| -> Vec<String> {
        vat.logs.drain(..).map(|line| line.lines().next().unwrap().to_owned()).collect()
    };
    assert_eq!(
        firsts(&mut vat),
        ["Unhandled rejection: Error: in module", "Unhandled rejection: TypeError: in build"]
    );
    assert_eq!(vat.answer(r##"#["bootstrap",[]]"##, &[]).1, "#1");
    assert!(vat.logs[0].contains("\n    at "), "{:?}", vat.logs);
    assert_eq!(firsts(&mut vat), ["Unhandled rejection: Error: in bootstrap"]);
    assert_eq!(vat.answer(r##"#["late",[]]"##, &[]).1, "#2");
    assert_eq!(firsts(&mut vat), [""; 0]);
    assert_eq!(vat.answer(r##"#["odd",[]]"##, &[]).1, "#3");
    let lines = firsts(&mut vat);
    assert_eq!((lines.len(), lines[1].as_str()), (100, "Unhandled rejection: 3"));
}

#[test]
fn the_log_has_the_stack_of_an_error_that_leaves() {
    let source = format!("{ROOT} () => Far('root', {{ fail() {{ throw Error('boom'); }} }});");
    let mut vat = Vat::start(&source);
    let (_, body, _) = vat.answer(r##"#["fail",[]]"##, &[]);
    assert_eq!(body, r##"#{"#error":"boom","errorId":"error:liveSlots:v1#70001","name":"Error"}"##);
    assert!(vat.logs[0].starts_with("error:liveSlots:v1#70001: Error: boom\n    at fail"), "{:?}", vat.logs);
}

#[test]
fn a_vats_logger_makes_others_with_tags() {
    let source = format!(
        "{ROOT} ({{ logger }}) => {{ logger.log('plain');
        const tagged = logger.subLogger({{ tags: ['a'] }}).subLogger('b').subLogger({{ tags: ['a', 'c'] }});
        tagged.warn('said', 1); logger.subLogger().info('none'); return Far('root', {{}}); }};"
    );
    let vat = Vat::start(&source);
    assert_eq!(vat.logs, ["plain", "[a, b, c] said 1", "none"]);
}

#[test]
fn errors_and_discoverable_exos_are_served() {
    let source = "import { Fail, makeError, q, b, X, assert } from '@endo/errors'; import * as all from 'capstan';
        import { makeDiscoverableExo } from '@metamask/kernel-utils/discoverable';
        export const buildRootObject = () => makeDiscoverableExo('root', { fail: x => Fail`got ${q(x)} ${x} ${b('bare')}`,
            made: x => { throw makeError(X`made ${q(x)}`, RangeError); }, same: () => all.Fail === Fail && assert.Fail === Fail,
            reserved: () => makeDiscoverableExo('y', { __getDescription__() {} }, {}) },
          { fail: { description: 'fails', args: {} }, same: { description: 'same', args: {} } });";
    let mut vat = Vat::start(source);
    let mut ask = |methargs: &str| vat.answer(methargs, &[]).1;
    assert!(ask(r##"#["fail",["x"]]"##).starts_with(r##"#{"#error":"got \"x\" (a string) bare""##));
    assert!(ask(r##"#["fail",[{}]]"##).contains("got {} (an object) bare"));
    assert!(ask(r##"#["made",[1]]"##).starts_with(r##"#{"#error":"made 1""##));
    assert_eq!(ask(r##"#["same",[]]"##), "#true");
    assert!(ask(r##"#["reserved",[]]"##).contains("reserved"));
    let (fail, same) =
        (r#""fail":{"args":{},"description":"fails"}"#, r#""same":{"args":{},"description":"same"}"#);
    assert_eq!(ask(r##"#["__getDescription__",[]]"##), format!("#{{{fail},{same}}}"));
    assert_eq!(ask(r##"#["__getDescription__",["same"]]"##), format!("#{{{same}}}"));
    assert!(ask(r##"#["__getDescription__",["toString"]]"##).contains("no description"));
}
